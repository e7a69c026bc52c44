"""Refusals of requests and connections that take too much or too long, and the log of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.errors import Refused
from worker.telemetry.log import get_log

if TYPE_CHECKING:
    from collections.abc import Callable

LINGERING_CLOSE = "sliceway.lingering_close"
"""In a request's ASGI `extensions`: the server itself lets a client that still sends hear the answer, then closes."""
LOG_EVERY_S = 60.0
_log = get_log(__name__)


class RequestTimeout(Refused):
    """The request's head or body did not arrive in time."""

    status = 408
    code = "request_timeout"
    advice = "Send the request again, faster; the limits are in docs/settings.md."


class UrlTooLong(Refused):
    """The request's URL is longer than what is taken."""

    status = 414
    code = "url_too_long"
    advice = "Use a shorter URL; the limit is SLICEWAY_API_URL_MAX_BYTES."


class HeadTooLarge(Refused):
    """The request's head is larger than what is taken."""

    status = 431
    code = "head_too_large"
    advice = "Send fewer or shorter header fields; the limit is SLICEWAY_API_HEAD_MAX_BYTES."


class TooManyConnections(Refused):
    """The process has as many connections as it keeps, and each has a request under way."""

    status = 503
    code = "too_many_connections"
    advice = "Send the request again after the time in Retry-After."


class RefusalLog:
    """Counts what is refused, by reason, and writes one line a minute for each: a flood does not fill the disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, every_s: float = LOG_EVERY_S) -> None:
        """Count nothing yet."""
        self._clock = clock
        self._every_s = every_s
        self._counts: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def note(self, reason: str) -> None:
        """Count one; the first of a reason is written at once."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if self._clock() >= self._next.get(reason, 0.0):
            self._write(reason)

    def flush(self) -> None:
        """Write the reasons whose minute is over."""
        for reason in [each for each, due in self._next.items() if self._clock() >= due]:
            if reason in self._counts:
                self._write(reason)

    def _write(self, reason: str) -> None:
        self._next[reason] = self._clock() + self._every_s
        _log.warning("api.refused", reason=reason, count=self._counts.pop(reason))
