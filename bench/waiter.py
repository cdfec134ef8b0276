"""Runs a command and writes what the operating system says it took: `python -I -S waiter.py ANSWER COMMAND …`.

A process of its own, and as small as one of Python can be: on Linux the peak memory of a process begins with what its parent held.
"""

import os
import sys
import time

began = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(process, 0)
wall = time.perf_counter() - began
with open(sys.argv[1], "w") as answer:
    answer.write(f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime} {wall} {used.ru_maxrss}")
