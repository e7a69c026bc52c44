"""Processes that we start, watch and end, and that never outlive us."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from worker.local.account import run_as
from worker.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.local.account import Account

#: A log that has grown past this is set aside at the next start; one older log is kept.
LOG_LIMIT_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_CAUSE = re.compile(
    r"address (already )?in use|no space left|permission denied|cannot allocate memory|read-only file system"
    r"|too many open files|disk quota exceeded",
    re.IGNORECASE,
)
"""What the machine refuses; servers tell it before their last line, which says that they have ended."""
_FATAL = re.compile(r"\b(FATAL|PANIC)\b")


class Child:
    """One process of ours, leading a session and a group of its own; its output goes to the end of a log file.

    It does not outlive us: when this process goes, the child's group gets `last_signal`, then SIGKILL.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        last_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start it, as `account` when one is given (that takes root).

        Raises:
            LocalError: it cannot be started at all.
        """
        with open_log(log) as output:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own programs
                    [str(word) for word in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                    **run_as(account),
                )
            except OSError as error:
                raise LocalError(f"cannot start {argv[0]}: {error.strerror}") from error
        self._reaped = False
        _reaper().tie(self.pid, last_signal)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code (negative: the signal that killed it), or None while it runs."""
        return None if self._process.poll() is None else self._reap()

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the process alone; nothing happens when it has ended."""
        self._process.send_signal(signum)

    def stop(self, signum: signal.Signals = signal.SIGTERM, *, grace_s: float = 10.0) -> int:
        """End it with `signum`, and its whole group with SIGKILL after `grace_s`; returns the exit code."""
        self.send(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL for the process and whatever is left of its group; returns the exit code once it is gone."""
        return self._reap()

    def _reap(self) -> int:
        """Kill what is left of the group, once: later its number may be that of a stranger's."""
        if not self._reaped:
            self._reaped = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            _reaper().untie(self.pid)
        return self._process.wait()


def wait_until(
    done: Callable[[], bool], *, timeout_s: float, poll_s: float = 0.01, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Poll until `done`; False when the time is up, or when `alive` no longer holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline or not alive():
            return False
        time.sleep(poll_s)
    return True


class Service(Protocol):
    """Something that runs as a child process: a server or a role."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def log(self) -> Path:
        """Where its output goes."""

    def launch(self) -> None:
        """Start it without waiting for it."""

    def is_ready(self) -> bool:
        """Whether it does its work by now."""

    def poll(self) -> int | None:
        """Its exit code once it has ended, else None."""

    def stop(self) -> None:
        """Let it end in order; nothing happens if it does not run."""

    def kill(self) -> None:
        """End it at once; nothing happens if it does not run."""


def wait_ready(
    service: Service, *, timeout_s: float, given_up: Callable[[], bool] = lambda: False, log_from: int = 0
) -> None:
    """Return once `service`, launched before, is ready; or sooner, when `given_up` says so.

    Args:
        service: what was launched.
        timeout_s: how long it may take.
        given_up: says that the wait is to end.
        log_from: where its log began to be about this start, in bytes.

    Raises:
        LocalError: it has ended, or is not ready within `timeout_s`; it no longer runs then.
    """
    ready = wait_until(
        service.is_ready,
        timeout_s=timeout_s,
        poll_s=0.03,
        alive=lambda: service.poll() is None and not given_up(),
    )
    if not ready and not given_up():
        code = service.poll()
        service.kill()
        how = f"is not ready after {timeout_s:.0f} s" if code is None else exit_reason(code)
        raise LocalError(f"{service.name} {how}: {reason(service.log, code, log_from)} (log: {service.log})")


def exit_reason(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def open_log(log: Path) -> BinaryIO:
    """Open a log to append to it, readable by us alone; one that has grown large is set aside first."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def log_size(log: Path) -> int:
    """The bytes in a log by now: what a start writes comes behind them."""
    return log.stat().st_size if log.exists() else 0


def reason(log: Path, code: int | None, log_from: int = 0) -> str:
    """Why a process ended, as far as its log says so, in a line.

    Args:
        log: where its output went.
        code: its exit code. What a signal has ended did not say why: the line is the last one.
        log_from: where the log began to be about this process, in bytes.
    """
    lines = _last_lines(log, log_from)
    if code is None or code > 0:
        for telling in (_CAUSE, _FATAL):
            if found := next((line for line in lines if telling.search(line)), None):
                return found
    return lines[-1] if lines else "(nothing in its log)"


def last_line(log: Path) -> str:
    """The last line of a log that says anything, for the one line in which a failure is told."""
    return reason(log, -signal.SIGKILL)


def _last_lines(log: Path, log_from: int) -> list[str]:
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL_BYTES, log_from if log_from <= size else 0))  # a large log was set aside
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line]


class _Reaper:
    """Our end of the pipe to `worker.local.reaper`."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("reaper.py")
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", program], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )

    def tie(self, pid: int, last_signal: signal.Signals) -> None:
        self._write(f"tie {pid} {int(last_signal)}\n")

    def untie(self, pid: int) -> None:
        self._write(f"untie {pid}\n")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # someone killed it: what we stop ourselves is still stopped
            os.write(self._process.stdin.fileno(), line.encode())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def forget(self) -> None:
        """In a forked child: a copy of the pipe must not keep it open past the owner's end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.returncode = 0  # not this process's child: nothing to wait for


_current: list[_Reaper] = []
_making = threading.RLock()  # a signal handler may come here too


def _reaper() -> _Reaper:
    with _making:
        if not _current:
            _current.append(_Reaper())
            atexit.register(_current[0].close)
        return _current[0]


def _after_fork_in_child() -> None:
    while _current:
        _current.pop().forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
