"""A process that yields the processor lowers its priority, and that of the threads that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.local.account import server_account

SCRIPT = """
import os, threading
from worker.runtime.cpu_priority import yield_to_others
yield_to_others({nice})
def show():
    print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_BATCH)
thread = threading.Thread(target=show)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("nice", [0, 7, 19])
def test_threads_started_afterwards_run_after_others(nice: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(nice=nice)], capture_output=True, text=True, check=True, timeout=60
    )
    own = int(subprocess.run(["nice"], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert done.stdout.split() == [str(min(19, own + nice)), str(nice > 0)]


SHELL = """
import subprocess, sys
from pathlib import Path
inner = "import threading\\nfrom worker.runtime.cpu_priority import yield_to_others\\nyield_to_others(19)\\n"
inner += "[thread.join() for thread in threading.enumerate() if thread.name == 'niceness']"
subprocess.run([sys.executable, "-c", inner], check=True, timeout=60)
print(Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no processes by session")
def test_a_worker_leaves_the_session_of_the_shell_that_it_runs_in_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHELL], capture_output=True, text=True, check=True, timeout=90, start_new_session=True
    )
    assert done.stdout == "0\n"


AUTOGROUP = """
import ctypes, os, time
from pathlib import Path
from worker.runtime.cpu_priority import yield_to_others
if {uid}:
    os.setgroups([]), os.setgid({uid}), os.setuid({uid})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: the process still owns its files in /proc
print("ready", flush=True)
input()
yield_to_others(7)
until = time.monotonic() + 30
while (nice := Path("/proc/self/autogroup").read_text().split()[-1]) != "7" and time.monotonic() < until:
    time.sleep(0.05)
print(nice)
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no processes by session")
def test_workers_without_privileges_that_start_together_all_set_the_nice_value_of_their_group() -> None:
    account = server_account()
    script = AUTOGROUP.format(uid=account.uid if account else 0)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["7\n"] * 3


STOPPING = """
import os, threading
from worker.runtime.cpu_priority import stop_yielding, yield_to_others
before = os.nice(0)
yield_to_others(7)
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
stop_yielding(7)
ids = (0, thread.native_id)
schedulers = {os.sched_getscheduler(each) for each in ids}
nice = {os.getpriority(os.PRIO_PROCESS, each) - before for each in ids}
stop.set()
print(schedulers == {os.SCHED_OTHER}, nice)
"""


def test_a_worker_that_is_to_end_yields_no_longer() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPING], capture_output=True, text=True, check=True, timeout=60)
    may_raise_it = server_account() is not None  # root
    assert done.stdout == f"True {{{0 if may_raise_it else 7}}}\n"
