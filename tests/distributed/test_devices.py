"""The supervisor of `--devices`, over processes that import nothing and take milliseconds; and what the option refuses."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from burnish.cli import devices as module
from burnish.cli.devices import BYSTANDER, SUPERVISOR, DevicesConfig, Supervisor, on_devices
from burnish.config.values import ConfigError
from burnish.distributed import watch


@pytest.fixture(autouse=True)
def hard_timeout():
    """A supervisor that waits for ever is killed by its own test, and its processes with it."""

    def late(number, frame):
        raise AssertionError("the supervisor did not come to an end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def supervise(program, count=2):
    """Each process runs `program` with its rank as RANK."""
    head = "import os, signal, sys, time; RANK = int(os.environ['RANK'])\n"
    return Supervisor([sys.executable, "-S", "-c", head + program], count).run()


def test_the_words_it_shares_with_the_watch():
    assert (watch.BYSTANDER, watch.SUPERVISOR) == (BYSTANDER, SUPERVISOR)


def test_each_process_is_told_who_it_is(capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS"
    program = f"time.sleep(RANK / 5); print(*(os.environ[name] for name in {names!r}.split()), int(os.environ['MASTER_PORT']) > 0)"
    assert supervise(program) == 0
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert capfd.readouterr().out == f"0 0 2 2 127.0.0.1 {threads} True\n1 1 2 2 127.0.0.1 {threads} True\n"


def test_threads_that_the_user_chose_stay(capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert supervise("print(os.environ['OMP_NUM_THREADS'])", count=1) == 0
    assert capfd.readouterr().out == "7\n"


def test_rank_0_can_listen_at_the_port_that_is_kept_for_it():
    program = "import socket; one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    assert supervise(program + "one.bind(('', int(os.environ['MASTER_PORT']))); one.listen()", count=1) == 0


@pytest.mark.parametrize("status", [1, 2, 5])
def test_the_status_is_that_of_the_cause(status):
    assert supervise(f"sys.exit({status} if RANK else {BYSTANDER})") == status


AFTER_THE_OTHER = """
while not os.path.lexists(pid): time.sleep(0.01)
try:
    while open(f"/proc/{os.readlink(pid)}/stat").read().rpartition(") ")[2][0] != "Z": time.sleep(0.01)
except OSError: pass  # the supervisor knows already
"""


def test_one_that_is_killed_is_the_cause_whatever_the_others_say(capfd, tmp_path):
    killed = "if RANK: os.symlink(str(os.getpid()), pid); os.kill(os.getpid(), signal.SIGKILL)"
    assert supervise(f"pid = {str(tmp_path / 'pid')!r}\n{killed}{AFTER_THE_OTHER}sys.exit(2)") == 137
    assert capfd.readouterr().err == "error: rank 1 was killed by signal 9 (SIGKILL): out of memory?\n"
    assert supervise("RANK and os.kill(os.getpid(), signal.SIGSEGV)") == 139
    assert capfd.readouterr().err == "error: rank 1 was killed by signal 11 (SIGSEGV)\n"


def test_nobody_is_left_when_one_has_failed(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.5)
    begun = time.monotonic()
    assert supervise("sys.exit(3) if RANK else time.sleep(60)") == 3
    assert time.monotonic() - begun < 9  # of GRACE's 10


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(*numbers, when, pause=0.7):
    """To this process, one after the other, after a pause each, from `when` on."""

    def work():
        wait_until(when)
        for number in numbers:
            time.sleep(pause)
            os.kill(os.getpid(), number)

    threading.Thread(target=work).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once(number, capfd, tmp_path):
    """And the processes may take the time they need."""
    program = (
        f"heard = []; signal.signal({int(number)}, lambda number, frame: heard.append(number))\n"
        f"os.mkdir({str(tmp_path)!r} + f'/{{RANK}}')\nwhile not heard: time.sleep(0.01)\n"
        f"time.sleep(1); sys.stdout.write(f'{{len(heard)}}\\n'); sys.exit({128 + number})"
    )
    before = signal.getsignal(number)
    send(number, when=lambda: len(list(tmp_path.iterdir())) == 2)
    assert supervise(program) == 128 + number
    assert capfd.readouterr() == ("1\n1\n", "")
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_what_does_not_end(tmp_path):
    begun = time.monotonic()
    send(signal.SIGTERM, signal.SIGTERM, when=lambda: len(list(tmp_path.iterdir())) == 2)
    ignores = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); os.mkdir({str(tmp_path)!r} + f'/{{RANK}}')"
    assert supervise(f"{ignores}; time.sleep(60)") == 143
    assert time.monotonic() - begun < 25


def test_processes_whose_supervisor_is_killed_hear_of_it(tmp_path):
    """The pipe ends; `distributed.watch` listens to it."""
    mine = f"import os; mine = os.path.join({str(tmp_path)!r}, os.environ['RANK']); os.mkdir(mine)"
    program = f"{mine}; os.read(int(os.environ['{SUPERVISOR}']), 1); os.mkdir(mine + ' ends')"
    script = f"import sys; from burnish.cli.devices import Supervisor; Supervisor([sys.executable, '-S', '-c', {program!r}], 2).run()"
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    time.sleep(0.5)
    assert list(tmp_path.glob("* ends")) == []
    parent.kill()
    parent.wait()
    wait_until(lambda: len(list(tmp_path.glob("* ends"))) == 2)


def never():
    raise AssertionError("nothing may be imported or started")


def test_devices_in_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    said = type("Said", (), {"devices": DevicesConfig(devices=2)})
    with pytest.raises(ConfigError) as refusal:
        on_devices(["sft"], lambda: said, never)
    assert str(refusal.value) == ("devices=2 starts processes, and the environment says that this is one of 4 already; leave one out.")


def test_what_all_processes_of_a_machine_refuse_the_first_one_says(monkeypatch):
    def refuse():
        raise ConfigError("No.")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as silent:
        on_devices(["sft"], refuse, never)
    assert silent.value.code == 2
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="No."):
        on_devices(["sft"], refuse, never)


def test_devices_auto_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    said = type("Said", (), {"devices": DevicesConfig(devices="auto")})
    with pytest.raises(ConfigError) as refusal:
        on_devices(["sft"], lambda: said, never)
    assert str(refusal.value) == "devices='auto' finds no GPU; say how many processes are to train, or leave it out for one."


@pytest.mark.parametrize("devices", [0, -1, "all", 1.5])
def test_what_is_no_number_of_devices(devices):
    with pytest.raises(ConfigError, match="devices must be"):
        DevicesConfig(devices=devices)
