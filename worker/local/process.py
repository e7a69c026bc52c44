"""Child processes: start, wait, stop, and the reason of an end by the log. No child outlives this process."""

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

#: The next start renames a log that has grown past this; one older log is kept.
LOG_LIMIT_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_CAUSE = re.compile(
    r"address (already )?in use|no space left|permission denied|cannot allocate memory|read-only file system"
    r"|too many open files|disk quota exceeded",
    re.IGNORECASE,
)
"""Failures of the machine. A server logs them before its last line, which only says that it ends."""
_FATAL = re.compile(r"\b(FATAL|PANIC)\b")


class Child:
    """A child process that leads its own session and group; its output is appended to a log file.

    When this process ends, the reaper sends the child's group `last_signal`, then SIGKILL.
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
        """Start the process, as `account` if one is given (which needs root).

        Raises:
            LocalError: the process cannot be started.
        """
        with open_log(log) as output:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own programs
                    [str(argument) for argument in argv],
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
        """The process id, which is also the id of the group."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code (negative: the signal that killed the process), or None while it runs."""
        return None if self._process.poll() is None else self._reap()

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the process alone, unless it has ended."""
        self._process.send_signal(signum)

    def stop(self, signum: signal.Signals = signal.SIGTERM, *, grace_s: float = 10.0) -> int:
        """End the process with `signum`, and its group with SIGKILL after `grace_s`; returns the exit code."""
        self.send(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """Kill the process and its group with SIGKILL; returns the exit code."""
        return self._reap()

    def _reap(self) -> int:
        """Kill the rest of the group, once: later the kernel may give its id to another group."""
        if not self._reaped:
            self._reaped = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            _reaper().untie(self.pid)
        return self._process.wait()


def wait_until(
    done: Callable[[], bool], *, timeout_s: float, poll_s: float = 0.01, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Poll until `done`; False when the time is over, or when `alive` is false."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline or not alive():
            return False
        time.sleep(poll_s)
    return True


class Service(Protocol):
    """A server or a role that runs as a child process."""

    @property
    def name(self) -> str:
        """The name for messages."""

    @property
    def log(self) -> Path:
        """The file of its output."""

    def launch(self) -> None:
        """Start it without waiting for it."""

    def is_ready(self) -> bool:
        """Whether it can serve requests."""

    def poll(self) -> int | None:
        """The exit code if it has ended, else None."""

    def stop(self) -> None:
        """Stop it gracefully if it runs."""

    def kill(self) -> None:
        """Kill it and its children with SIGKILL if it runs."""


class ChildService:
    """What the services have in common: the child process, which `launch` starts."""

    _child: Child | None = None

    def poll(self) -> int | None:
        """The exit code of a process that has ended, else None."""
        return self._child.poll() if self._child else None

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL if it runs."""
        if self._child:
            self._child.kill()


def wait_ready(
    service: Service, *, timeout_s: float, given_up: Callable[[], bool] = lambda: False, log_from: int = 0
) -> None:
    """Wait until a launched service is ready.

    Args:
        service: the service.
        timeout_s: time limit.
        given_up: returns true to end the wait early.
        log_from: size of the log before this start, in bytes.

    Raises:
        LocalError: the service has ended, or was not ready within `timeout_s` and was killed.
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
    """How a process ended, by its exit code."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def open_log(log: Path) -> BinaryIO:
    """Open a log to append to it, readable by this user alone; rename a large one first."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def log_size(log: Path) -> int:
    """The size of a log in bytes; 0 if it does not exist."""
    return log.stat().st_size if log.exists() else 0


def reason(log: Path, code: int | None, log_from: int = 0) -> str:
    """The log line that says best why a process ended.

    Args:
        log: the file of its output.
        code: its exit code. A process that a signal has killed did not log the reason: the line is then the last one.
        log_from: size of the log before the process started, in bytes.
    """
    lines = _last_lines(log, log_from)
    if code is None or code > 0:
        for telling in (_CAUSE, _FATAL):
            if found := next((line for line in lines if telling.search(line)), None):
                return found
    return lines[-1] if lines else "(nothing in its log)"


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    return reason(log, -signal.SIGKILL)


def _last_lines(log: Path, log_from: int) -> list[str]:
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL_BYTES, log_from if log_from <= size else 0))  # a smaller log is a new file
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line]


class _Reaper:
    """This process's end of the pipe to `worker.local.reaper`."""

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
        with contextlib.suppress(BrokenPipeError):  # the reaper was killed; `stop` still works without it
            os.write(self._process.stdin.fileno(), line.encode())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def forget(self) -> None:
        """Close the copy of the pipe in a forked child: an open copy would hide the owner's end from the reaper."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.returncode = 0  # it is the parent's child: this process cannot wait for it


_current: list[_Reaper] = []
_making = threading.RLock()  # reentrant: a signal handler may start a child, too


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
