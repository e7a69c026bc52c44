"""Ends the child processes of its owner when the owner has ended, even by SIGKILL: the kernel closes the owner's pipe.

`worker.local.process` runs this program; it uses the standard library only. It reads `tie PID SIGNAL` and `untie PID`
from standard input. At the end of input it sends each tied process group its signal, and SIGKILL two seconds later.
PR_SET_PDEATHSIG is not enough: it follows the thread that forked, and does not reach grandchildren.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_S = 2.0


def main() -> None:
    """Keep the list of groups until the pipe closes, then end the groups on it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    tied: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["tie", pid, signum]:
                tied[int(pid)] = int(signum)
            case ["untie", pid]:
                tied.pop(int(pid), None)
    _end(tied)


def _end(tied: dict[int, int]) -> None:
    for pid, signum in tied.items():
        _signal_group(pid, signum)
        _signal_group(pid, signal.SIGCONT)  # a stopped process reacts to SIGKILL only
    deadline = time.monotonic() + GRACE_S
    while any(_signal_group(pid, 0) for pid in tied) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in tied:
        _signal_group(pid, signal.SIGKILL)


def _signal_group(pid: int, signum: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)
        return True
    return False


if __name__ == "__main__":
    main()
