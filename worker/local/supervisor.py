"""Keeps a set of services running: starts them in order, restarts those that die, stops all in reverse order."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import stat
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from worker.local.errors import LocalError
from worker.local.process import exit_reason, log_size, reason, wait_ready, wait_until
from worker.restarts import RestartBackoff

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType, TracebackType

    from worker.local.process import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_S = 0.1


class Stopped(Exception):
    """A signal asked us to stop while services were still starting."""


@dataclass(slots=True)
class _Watched:
    service: Service
    started_at: float = 0.0
    log_from: int = 0
    due_at: float | None = None
    backoff: RestartBackoff = field(default_factory=RestartBackoff)


class Supervisor:
    """The owner of a state folder and of all services on it; a context manager for the main thread.

    On entry it takes the folder's lock and handles SIGINT, SIGTERM and SIGHUP. It starts services in stages, and at
    the exit stops the stages in reverse order. A second signal kills services that still run, unless it is SIGHUP.
    If this process is killed, the reaper ends all services.
    """

    def __init__(self, state: Path, *, say: Callable[[str], None] = print) -> None:
        """Prepare; the lock and the signals are taken on entry.

        Args:
            state: an existing folder.
            say: gets a line for each service that dies.
        """
        self._state = state
        self._say = say
        self._stages: list[tuple[Service, ...]] = []
        self._watched: list[_Watched] = []
        self._asked_to_stop = self._asked_to_kill = self._hung_up = False
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(thread_name_prefix="start", max_workers=16)
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._lock = _lock(self._state)
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        handled = [each for each in _SIGNALS if not (nohup and each == signal.SIGHUP)]
        self._handlers = {signum: signal.signal(signum, self._on_signal) for signum in handled}
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked_to_stop = True  # from here on a signal kills the services
        self._ending.set()
        self._watcher.join()
        self._pool.shutdown()
        for stage in reversed(self._stages):
            self._stop_stage(stage)
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        os.close(self._lock)

    def begin(self, *services: Service, timeout_s: float = 60.0) -> Callable[[], None]:
        """Start services in parallel, in the background, and return the function that waits until all are ready.

        That function raises:
            LocalError: a service has ended, or is not ready in time.
            Stopped: a signal came meanwhile.
        """
        self._stages.append(services)
        starts = [self._pool.submit(self._bring_up, service, timeout_s) for service in services]

        def wait_for_all() -> None:
            for start in wait(starts, return_when=FIRST_EXCEPTION).done:
                start.result()
            if self._asked_to_stop:
                raise Stopped

        return wait_for_all

    def start(self, *services: Service, timeout_s: float = 60.0) -> None:
        """Start services in parallel and return when all are ready; raises what `begin` lists."""
        self.begin(*services, timeout_s=timeout_s)()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a signal that asks to stop; returns whether one came before the time was over."""
        wait_until(lambda: self._asked_to_stop, timeout_s=math.inf if timeout_s is None else timeout_s, poll_s=_TICK_S)
        return self._asked_to_stop

    def _bring_up(self, service: Service, timeout_s: float) -> None:
        log_from = log_size(service.log)
        service.launch()
        wait_ready(service, timeout_s=timeout_s, given_up=lambda: self._asked_to_stop, log_from=log_from)
        self._watched.append(_Watched(service, started_at=time.monotonic(), log_from=log_from))

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        # Only flags, which take no lock: the interrupted code, or another call of this function, may hold it.
        asked_before, self._asked_to_stop = self._asked_to_stop, True
        if signum == signal.SIGHUP:  # a closed terminal can cause several: from its shell and from the kernel
            if not self._hung_up:
                self._hung_up = True
                _detach_from_terminal()
        elif asked_before:
            self._asked_to_kill = True

    def _stop_stage(self, stage: tuple[Service, ...]) -> None:
        with ThreadPoolExecutor(max_workers=len(stage) or 1) as pool:
            stops = [pool.submit(service.stop) for service in stage]
            while wait(stops, timeout=_TICK_S).not_done:
                self._kill_if_asked()
        for stop in stops:
            stop.result()

    def _kill_if_asked(self) -> None:
        if self._asked_to_kill:
            for stage in self._stages:
                for service in stage:
                    service.kill()

    def _watch(self) -> None:
        while not self._ending.wait(_TICK_S):
            self._kill_if_asked()
            for watched in [] if self._asked_to_stop else self._watched:
                self._restart_if_dead(watched)

    def _restart_if_dead(self, watched: _Watched) -> None:
        service, now = watched.service, time.monotonic()
        if watched.due_at is None:
            code = service.poll()
            if code is None:
                return
            pause_s = watched.backoff.pause_s(now - watched.started_at)
            why = reason(service.log, code, watched.log_from)
            when = f"in {pause_s:g} s" if pause_s else "at once"
            self._say(f"{service.name} {exit_reason(code)}, starts again {when}: {why}")
            watched.due_at = now + pause_s
        elif now >= watched.due_at:
            watched.due_at, watched.started_at, watched.log_from = None, now, log_size(service.log)
            try:
                service.launch()
            except LocalError as error:
                self._say(f"{service.name} does not start: {error.message}")
                watched.due_at = now + watched.backoff.pause_s(0.0)


def _detach_from_terminal() -> None:
    """Redirect the standard streams to /dev/null: writes to a closed terminal fail, and would fail the stop."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _lock(state: Path) -> int:
    """Take the lock of the folder; the kernel releases it at the end of this process.

    Raises:
        LocalError: another process has the lock, or this user cannot write to the folder.
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
