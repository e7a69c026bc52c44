"""`sliceway worker`: a parent that keeps worker processes running, one for each core, and starts anew what dies.

Each child is `celery -A worker worker` with a small pool of threads. Threads cannot be killed, so what a stuck or
poisoned task needs is the end of its process; the parent is what makes that harmless.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from worker.config.authorities import check_authorities
from worker.config.cgroup import killed_for_memory
from worker.config.live_profiles import Reloader
from worker.restarts import RestartBackoff
from worker.runtime.heartbeat import PARENT_VARIABLE
from worker.signals import hangups_wait, run_on_after_hangup
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from worker.config.settings import Settings

log = get_logger(__name__)

STOP_GRACE_S = 8.0
"""Children end by themselves within 5 s of SIGTERM; what is left after this is killed."""
MEMORY_ADVICE = (
    "The kernel killed it: the control group is out of memory. Raise its limit, or lower SLICEWAY_WORKER_PROCESSES."
)


class MemoryKills:
    """Tells which of the processes that were killed the kernel has killed for want of memory."""

    def __init__(self, count: Callable[[], int] = killed_for_memory) -> None:
        """Begin; ``count`` says how many it has killed so far in the group that parent and children are in."""
        self._count = count
        self._explained = count()

    def explain(self, code: int) -> bool:
        """Say whether a process with this exit code is one of them; each kill is the end of one process."""
        if code != -signal.SIGKILL or self._count() <= self._explained:
            return False
        self._explained += 1
        return True


class _Child:
    def __init__(self, number: int, memory_kills: MemoryKills) -> None:
        self.number = number
        self.memory_kills = memory_kills
        self.backoff = RestartBackoff()
        self.start_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def start(self) -> None:
        self.started_at = time.monotonic()
        environment = os.environ | {PARENT_VARIABLE: str(os.getpid())}
        with hangups_wait():  # one that came before the child's handler would end it
            self.process = subprocess.Popen(command(self.number), env=environment, start_new_session=True)  # noqa: S603 - ours

    def hang_up(self) -> None:
        """Have the process read its stores file again."""
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def reap(self) -> None:
        """Notice a death, and decide when to start again."""
        if self.process is None or self.process.poll() is None:
            return
        code, self.process = self.process.returncode, None
        pause_s = self.backoff.pause_s(time.monotonic() - self.started_at)
        self.start_at = time.monotonic() + pause_s
        log.warning("pool.worker_ended", worker=self.number, code=code, again_in_s=pause_s)
        if self.memory_kills.explain(code):
            log.error("pool.out_of_memory", worker=self.number, advice=MEMORY_ADVICE)


def command(number: int) -> list[str]:
    """Return the command of one worker process."""
    options = ["--without-gossip", "--without-mingle", "-n", f"worker-{os.getpid()}-{number}@%h"]
    return [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker", *options]


def run(settings: Settings) -> int:
    """Keep the processes running until SIGTERM or SIGINT; returns the exit code."""
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    reloader = Reloader(settings.live_profiles, check_authorities)
    run_on_after_hangup(reloader.ask)
    memory_kills = MemoryKills()
    children = [_Child(number, memory_kills) for number in range(1, settings.worker_processes + 1)]
    while not stopping:
        if reloader.asked:
            reloader.look()
            for child in children if reloader.error is None else []:
                child.hang_up()
        for child in children:
            child.reap()
            if child.process is None and time.monotonic() >= child.start_at:
                child.start()
        time.sleep(0.1)
    _stop_all(children)
    return 0


def _stop_all(children: list[_Child]) -> None:
    processes = [child.process for child in children if child.process is not None]
    for process in processes:
        process.terminate()
    until = time.monotonic() + STOP_GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("pool.worker_killed", pid=process.pid)  # noqa: TRY400 - no traceback can help
            process.kill()
            process.wait()
