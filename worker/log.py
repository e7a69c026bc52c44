"""Log lines: a fixed event name plus keys, as JSON or text; nothing secret passes.

    log = get_log(__name__)
    with bound(job_id=job.id):
        log.info("slice.checkpointed", number=7, took_s=0.4)

The standard library's logging carries them, so that lines of Celery, uvicorn and Alembic take the same way out. (The
packages for structured logging cost a fifth of a second at every start.)
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIDDEN = "***"
_SECRET_NAMES = frozenset(
    {"authorization", "password", "secret", "secret_id", "secret_key", "api_key", "sign", "signature", "basic_auth"}
)
_NAMES = (
    r"authorization|password|passwd|secret[_-]?(?:id|key)?|api[_-]?key|access[_-]?key"
    r"|sign|signature|q-signature|q-ak|x-amz-(?:signature|credential|security-token)|x-cos-security-token"
)
_PATTERNS = (
    # scheme://user:password@host, and scheme://:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:'\"]*:)[^\s/@'\"]+(?=@)", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Authorization: Bearer abc, 'Authorization': 'abc', sign=abc, "secret_key": "abc"
    (
        re.compile(
            rf"(?<![a-z0-9_])((?:{_NAMES})[\"']?\s*[:=]\s*(?:b(?=[\"']))?[\"']?(?:(?:bearer|basic)\s+)?)(?!\*\*\*|b[\"']|(?:bearer|basic)\s)[^\s\"',;&<>)\]}}]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer\s+)(?!\*\*\*)[a-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\bslw_[A-Za-z0-9_-]{16,}"), f"slw_{HIDDEN}"),
)
_HINTS = ("://", "sign", "auth", "pass", "secret", "key", "q-ak", "x-amz-", "x-cos-", "bearer", "slw_")
_LEAST_LITERAL_CHARS = 6
_literals: set[str] = set()
_context: ContextVar[Mapping[str, object]] = ContextVar("sliceway_log_context", default={})  # noqa: B039 - never changed


def hide(*secrets: str) -> None:
    """Let these very words never pass again, wherever they stand. Too short ones would blot out ordinary words."""
    _literals.update(secret for secret in secrets if len(secret) >= _LEAST_LITERAL_CHARS)


def redact(text: str) -> str:
    """Return the text without passwords in URLs, signatures, authorization values, keys and the words of `hide`."""
    for literal in _literals:
        text = text.replace(literal, HIDDEN)
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):  # most texts: a tenth of the time
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_json(value: Any) -> Any:
    """Return JSON with every string in it redacted, and whatever a secret's name stands before."""
    match value:
        case str():
            return redact(value)
        case dict():
            return {
                name: HIDDEN if name.lower() in _SECRET_NAMES and part is not None else redact_json(part)
                for name, part in value.items()
            }
        case list() | tuple():
            return [redact_json(part) for part in value]
        case _:
            return value


@contextmanager
def bound(**keys: object) -> Iterator[None]:
    """Give every line logged inside these keys too."""
    token = _context.set({**_context.get(), **keys})
    try:
        yield
    finally:
        _context.reset(token)


class Log:
    """Logs events of one module."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **keys: object) -> None:
        """Log what only a developer wants to see."""
        self._write(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        """Log what happened as it should."""
        self._write(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        """Log what an operator may want to know."""
        self._write(logging.WARNING, event, keys)

    def error(self, event: str, **keys: object) -> None:
        """Log what an operator has to know."""
        self._write(logging.ERROR, event, keys)

    def exception(self, event: str, **keys: object) -> None:
        """Log the exception being handled, with its traceback."""
        self._write(logging.ERROR, event, keys, exc_info=True)

    def _write(self, level: int, event: str, keys: Mapping[str, object], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"keys": {**_context.get(), **keys}}
            self._logger.log(level, event, extra=extra, exc_info=exc_info, stacklevel=3)


def get_log(name: str) -> Log:
    """Return the log of a module."""
    return Log(logging.getLogger(name))


class _Formatter(logging.Formatter):
    """What both formats share: the moment, the parts of a line, its traceback."""

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
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(_Formatter):
    """For people: `12:30:05.123 info  slice.checkpointed number=7`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        parts = self._parts(record)
        event, traceback = parts.pop("event"), parts.pop("traceback", None)
        if hasattr(record, "keys"):
            del parts["logger"]  # our event names say where they come from
        keys = "".join(f" {name}={_word(part)}" for name, part in parts.items())
        line = f"{self._at(record)[11:-1]} {record.levelname.lower():7} {event}{keys}"
        return f"{line}\n{traceback}" if traceback else line


def set_up(
    form: Literal["auto", "json", "text"] = "auto", level: str = "info", *, stream: IO[str] | None = None
) -> None:
    """Send every line of this process to the stream (standard error), once, in this form.

    Args:
        form: `auto` is text on a terminal and JSON elsewhere.
        level: the least level that is written.
        stream: for tests.
    """
    stream = stream or sys.stderr
    text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "alembic"):  # a line a request, with its URL
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, dict, list, tuple))


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return (
        text
        if text and text.isprintable() and not re.search(r"[\s\"=]", text)
        else json.dumps(text, ensure_ascii=False)
    )
