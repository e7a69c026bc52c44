"""What yields the processor says so to the kernel, for the threads that it starts, too."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, threading
from worker.niceness import yield_to_others
yield_to_others({nice})
def tell():
    print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_BATCH)
thread = threading.Thread(target=tell)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("nice", [0, 7, 19])
def test_threads_started_afterwards_run_after_others(nice: int) -> None:
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(nice=nice)], capture_output=True, text=True, check=True, timeout=60
    )
    own = int(subprocess.run(["nice"], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert told.stdout.split() == [str(min(19, own + nice)), str(nice > 0)]
