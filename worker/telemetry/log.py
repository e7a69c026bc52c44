"""Log lines: a fixed event name plus keys, as JSON or text, without secrets.

    log = get_logger(__name__)
    with bound_contextvars(job_id=job.id):
        log.info("slice.checkpointed", number=7, took_s=0.4)

The names are structlog's. The standard library's logging writes the lines, so that those of Celery, uvicorn and Alembic
have the same format. (Packages for structured logging cost a fifth of a second at every start.)

The events of `worker/telemetry/emit.py` are log lines, too, at the level that `worker/telemetry/events.py` gives each.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from worker.telemetry.emit import subscribe
from worker.telemetry.events import EVENTS
from worker.telemetry.redact import redact, redact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_context: ContextVar[Mapping[str, object]] = ContextVar("sliceway_log_context", default={})  # noqa: B039 - never changed


@contextmanager
def bound_contextvars(**keys: object) -> Iterator[None]:
    """Add these keys to every line that is logged inside the `with`."""
    token = _context.set({**_context.get(), **keys})
    try:
        yield
    finally:
        _context.reset(token)


class Logger:
    """Logs events of one module."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **keys: object) -> None:
        """Log a detail for developers."""
        self._write(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        """Log a normal event."""
        self._write(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        """Log an event that an operator may need to know."""
        self._write(logging.WARNING, event, keys)

    def error(self, event: str, **keys: object) -> None:
        """Log an event that an operator must know."""
        self._write(logging.ERROR, event, keys)

    def exception(self, event: str, **keys: object) -> None:
        """Log the exception being handled, with its traceback."""
        self._write(logging.ERROR, event, keys, exc_info=True)

    def event(self, level: int, name: str, fields: Mapping[str, object]) -> None:
        """Log an event of the seam."""
        self._write(level, name, fields)

    def _write(self, level: int, event: str, keys: Mapping[str, object], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"keys": {**_context.get(), **keys}}
            self._logger.log(level, event, extra=extra, exc_info=exc_info, stacklevel=3)


def get_logger(name: str) -> Logger:
    """Return the log of a module."""
    return Logger(logging.getLogger(name))


def log_event(name: str, fields: Mapping[str, object]) -> None:
    """Write an event as a line; the subscriber of the log."""
    _events.event(EVENTS[name].level, name, fields)


def _subscribe(level: int) -> None:
    """Subscribe the log to the events that it writes at this level, and to no others: those cost nothing."""
    while _unsubscribe:
        _unsubscribe.pop()()
    _unsubscribe.append(subscribe(log_event, [name for name, event in EVENTS.items() if event.level >= level]))


_events = get_logger("worker.telemetry.events")
_unsubscribe: list[Callable[[], None]] = []
_subscribe(logging.INFO)


class _Formatter(logging.Formatter):
    """What both formats share: the time, the parts of a line, its traceback."""

    def _parts(self, record: logging.LogRecord) -> dict[str, Any]:
        keys: dict[str, Any] = getattr(record, "keys", None) or dict(_context.get())
        parts = {"event": record.getMessage(), "logger": record.name, **keys}
        if record.exc_info:
            parts["traceback"] = self.formatException(record.exc_info)
        return cast(
            "dict[str, Any]", redact_json({n: part if _plain(part) else str(part) for n, part in parts.items()})
        )

    @staticmethod
    def _at(record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(_Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {"at": self._at(record), "level": record.levelname.lower(), **self._parts(record)}
        return json.dumps(line, ensure_ascii=False, default=_redacted)


class TextFormatter(_Formatter):
    """For people: `2026-01-31T12:30:05.123Z info  slice.checkpointed number=7`; a traceback follows below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        parts = self._parts(record)
        event, traceback = parts.pop("event"), parts.pop("traceback", None)
        if hasattr(record, "keys"):
            del parts["logger"]  # our event names begin with the component
        keys = "".join(f" {name}={_quoted(part)}" for name, part in parts.items())
        line = f"{self._at(record)} {record.levelname.lower():7} {event}{keys}"
        return f"{line}\n{traceback}" if traceback else line


def set_up(
    form: Literal["auto", "json", "text"] = "auto", level: str = "info", *, stream: IO[str] | None = None
) -> None:
    """Write all log lines of this process to the stream (default: standard error) in this format.

    Args:
        form: `auto` is text on a terminal and JSON elsewhere.
        level: the lowest level that is written.
        stream: another stream, in tests.
    """
    stream = stream or sys.stderr
    show_failures_without_secrets()
    text = form == "text" or (form == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _subscribe(root.level)
    for noisy in ("httpx", "httpcore", "alembic"):  # at info they log each request with its URL
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


class _Handler(logging.StreamHandler[IO[str]]):
    """Reports a line that cannot be formatted without its secrets."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Print the failure, redacted; the standard library would print the line's arguments unredacted."""
        with suppress(OSError):  # a closed terminal or a full disk must not stop the work
            sys.stderr.write(redact(f"a line of {record.name} cannot be logged: {traceback.format_exc()}"))


def show_failures_without_secrets() -> None:
    """Redact what Python itself prints of an uncaught exception, in any thread."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda _kind, error, _trace: _print_exception(error)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda failed: _print_exception(failed.exc_value)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda failed: _print_exception(failed.exc_value)


def _print_exception(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        sys.stderr.write(redact("".join(traceback.format_exception(error))))


def _redacted(value: object) -> str:
    return redact(str(value))


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, dict, list, tuple))


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_redacted)
    return (
        text
        if text and text.isprintable() and not re.search(r"[\s\"=]", text)
        else json.dumps(text, ensure_ascii=False)
    )
