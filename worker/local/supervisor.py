"""Keeps a set of services running: starts them in order, starts again what dies, stops all in reverse order."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from worker.local.errors import LocalError
from worker.local.process import exit_reason, log_size, reason, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType, TracebackType

    from worker.local.process import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_S = 0.1
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 20.0
"""What has run for so long is in no loop of crashes: the next pause is the first one again."""


class Stopped(Exception):
    """A signal asked us to stop while services were still starting."""


@dataclass(slots=True)
class _Watched:
    service: Service
    pause_s: float = _FIRST_PAUSE_S
    started_at: float = 0.0
    log_from: int = 0
    due_at: float | None = None

    def next_pause_s(self, ran_s: float) -> float:
        """Return how long to wait before the next start of what has run for so long; the one after waits twice that."""
        pause_s = _FIRST_PAUSE_S if ran_s > _STEADY_S else self.pause_s
        self.pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return pause_s


class Supervisor:
    """The owner of a state folder and of everything that runs on it; a context manager, used by the main thread.

    On entry it takes the folder's lock and the signals that ask a program to end. Services are started in stages and
    live until it is left: then the stages are stopped in reverse order. A second signal kills what has not ended yet,
    unless it is that of a closed terminal, too.
    Should this process be killed, nothing of it stays behind.
    """

    def __init__(self, state: Path, *, say: Callable[[str], None] = print) -> None:
        """Take over nothing yet.

        Args:
            state: an existing folder.
            say: told in one line whenever a service dies.
        """
        self._state = state
        self._say = say
        self._stages: list[tuple[Service, ...]] = []
        self._watched: list[_Watched] = []
        self._asked_to_stop = threading.Event()
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(thread_name_prefix="start", max_workers=16)
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._lock = _lock(self._state)
        heard = [
            each for each in _SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN
        ]  # nohup
        self._handlers = {signum: signal.signal(signum, self._on_signal) for signum in heard}
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked_to_stop.set()  # from here on a signal means: at once
        self._ending.set()
        self._watcher.join()
        self._pool.shutdown()
        for stage in reversed(self._stages):
            with ThreadPoolExecutor(max_workers=len(stage) or 1) as pool:
                list(pool.map(lambda service: service.stop(), stage))
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        os.close(self._lock)

    def begin(self, *services: Service, timeout_s: float = 60.0) -> Callable[[], None]:
        """Start services side by side, in the background, and return the function that waits until all are ready.

        That function raises:
            LocalError: one of them ended, or is not ready in time.
            Stopped: a signal came meanwhile.
        """
        self._stages.append(services)
        starts = [self._pool.submit(self._bring_up, service, timeout_s) for service in services]

        def wait_for_all() -> None:
            for start in wait(starts, return_when=FIRST_EXCEPTION).done:
                start.result()
            if self._asked_to_stop.is_set():
                raise Stopped

        return wait_for_all

    def start(self, *services: Service, timeout_s: float = 60.0) -> None:
        """Start services side by side and return once all are ready.

        Raises:
            LocalError: one of them ended, or is not ready in time.
            Stopped: a signal came meanwhile.
        """
        self.begin(*services, timeout_s=timeout_s)()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether a signal asks us to stop, as soon as one does or the time is up."""
        return self._asked_to_stop.wait(timeout_s)

    def _bring_up(self, service: Service, timeout_s: float) -> None:
        log_from = log_size(service.log)
        service.launch()
        wait_ready(service, timeout_s=timeout_s, given_up=self._asked_to_stop.is_set, log_from=log_from)
        self._watched.append(_Watched(service, started_at=time.monotonic(), log_from=log_from))

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:  # of a closed terminal several may come, from its shell and from the kernel
            _let_go_of_terminal()
        elif self._asked_to_stop.is_set():
            for stage in self._stages:
                for service in stage:
                    service.kill()
        self._asked_to_stop.set()

    def _watch(self) -> None:
        while not self._ending.wait(_TICK_S):
            for watched in self._watched:
                self._look_after(watched)

    def _look_after(self, watched: _Watched) -> None:
        service, now = watched.service, time.monotonic()
        if watched.due_at is None:
            code = service.poll()
            if code is None:
                return
            pause_s = watched.next_pause_s(now - watched.started_at)
            why = reason(service.log, code, watched.log_from)
            self._say(f"{service.name} {exit_reason(code)}, starts again in {pause_s:g} s: {why}")
            watched.due_at = now + pause_s
        elif now >= watched.due_at:
            watched.due_at, watched.started_at, watched.log_from = None, now, log_size(service.log)
            try:
                service.launch()
            except LocalError as error:
                self._say(f"{service.name} does not start: {error.message}")
                watched.due_at = now + watched.pause_s


def _let_go_of_terminal() -> None:
    """Have what is still said go nowhere: a terminal that was closed fails each write, and with it the stop."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _lock(state: Path) -> int:
    """Take the lock of the folder; the kernel lets go of it when we end, however we end.

    Raises:
        LocalError: another process has it, or the folder is not ours.
    """
    try:
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalError(
            f"{state} cannot be used: {error.strerror}", advice="Choose another folder with --state DIR."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(lock, 32).decode()
        os.close(lock)
        raise LocalError(
            f"another sliceway (process {owner}) runs on {state}",
            advice="Stop it, or choose another folder with --state DIR.",
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock
