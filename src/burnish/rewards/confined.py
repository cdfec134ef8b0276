"""One program, confined as far as the system allows it: `code.py` runs this file as ``python -I confined.py``, and nothing imports it.

The folder it is started in has the program, "program.py", and "job.json": the limits, the name that the program runs under, and what is to
be written to file descriptor `done` when the program has come to its end.
"""

import ctypes
import json
import os
import resource
import runpy
import signal
import sys

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
PROCESSES = ("os.fork", "os.posix_spawn", "os.exec", "os.system", "os.spawn", "subprocess.", "pty.")
NETWORK = ("socket.",)
"""What Python's audit events that stand for these begin with."""


def confine(job):
    """Without a network: by namespaces, or where those are not permitted by refusing Python's own calls. Which of the two it is:
    "namespaces" or "audit". Other processes are refused in both, since the system does not limit those of root."""
    alone = 0
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        alone = not libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # which new namespaces may have undone
    for _ in range(2 * alone):
        # the first is the first process of its namespace, with which all others there end, and which signals do not reach as they
        # reach others; the second has the program
        inside = os.fork()
        if inside:
            _, status = os.waitpid(inside, 0)
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name, value in job["limits"].items():
        resource.setrlimit(int(name), (value, value))
    refused = PROCESSES if alone else PROCESSES + NETWORK

    def hook(event, arguments):
        if event.startswith(refused):
            raise PermissionError(f"{event} is not permitted here")

    sys.addaudithook(hook)
    return "namespaces" if alone else "audit"


def main():
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    os.remove("job.json")
    done = job["done"]
    os.set_inheritable(done, False)
    how = confine(job)
    sys.argv[:] = ["program.py"]
    runpy.run_path("program.py", run_name=job["run_name"])
    os.write(done, f"{job['token']} {how}".encode())


main()
