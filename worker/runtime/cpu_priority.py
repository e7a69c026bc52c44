"""Uploads yield the processors to whoever waits for an answer: the API, the database, other programs of the machine."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

_TRIES = 100
_AGAIN_S = 0.15


def yield_to_others(nice: int) -> None:
    """Have this thread, and those that it starts from now on, run after others that want the processor as well.

    On an idle machine this changes nothing. What the system does not allow is left as it is.

    Args:
        nice: how far, from 0 (not at all) to 19.
    """
    if nice == 0:
        return
    with suppress(OSError):
        os.nice(nice)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # it interrupts no other process when it wakes up
    # Where Linux groups processes by session, niceness counts within the group only, and the group has one of its own.
    # That of a shell is not ours to change: it would stay so for whatever is started there next.
    if os.getsid(0) == os.getpid():
        threading.Thread(target=_tell_group, args=(nice,), name="niceness", daemon=True).start()


def stop_yielding(nice: int) -> None:
    """Take back what was given away, to end before the grace does, however busy the machine is.

    To raise a thread's priority takes privileges, its session's takes none. What is not allowed is left as it is.

    Args:
        nice: how far this process has yielded.
    """
    if nice == 0:
        return
    for thread in [int(entry.name) for entry in Path("/proc/self/task").iterdir()]:
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) - nice)
    if os.getsid(0) == os.getpid():
        threading.Thread(target=_tell_group, args=(0,), name="niceness", daemon=True).start()


def _tell_group(nice: int) -> None:
    """Set the group's niceness; without privileges the kernel hears one process a tenth of a second, of them all."""
    for _ in range(_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
        except BlockingIOError:
            time.sleep(_AGAIN_S)
        except OSError:
            return
        else:
            return
