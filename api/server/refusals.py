"""What the server refuses before the application has the request: the errors, the last response, and their log."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.problems import MEDIA_TYPE, document, headers_of
from worker.errors import Refused
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Field = tuple[bytes, bytes]
LINGERING_CLOSE = "sliceway.lingering_close"
"""In a request's ASGI `extensions`: before it closes, the server itself reads on until the client has the response."""
LOG_EVERY_S = 60.0
_NEEDS_A_KEY = b"/v1/"
_log = get_logger(__name__)


class RequestTimeout(Refused):
    """The request's head or body did not arrive in time."""

    status = 408
    code = "request_timeout"
    advice = "Send the request again, faster; the limits are in docs/settings.md."


class UrlTooLong(Refused):
    """The request's URL is longer than the limit."""

    status = 414
    code = "url_too_long"
    advice = "Use a shorter URL; the limit is SLICEWAY_API_URL_MAX_BYTES."


class HeadTooLarge(Refused):
    """The request's head is larger than the limit."""

    status = 431
    code = "head_too_large"
    advice = "Send fewer or shorter header fields; the limit is SLICEWAY_API_HEAD_MAX_BYTES."


class TooManyConnections(Refused):
    """The process has as many connections as it keeps, and each has a request under way."""

    status = 503
    code = "too_many_connections"
    advice = "Send the request again after the time in Retry-After."


class RefusalLog:
    """Counts refusals by reason, and writes one line a minute for each reason: a flood does not fill the disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, every_s: float = LOG_EVERY_S) -> None:
        self._clock = clock
        self._every_s = every_s
        self._counts: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def count(self, reason: str) -> None:
        """Count one; the first of a reason is written at once."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if self._clock() >= self._next.get(reason, 0.0):
            self._write(reason)

    def flush(self) -> None:
        """Write the reasons whose minute is over."""
        for reason in [each for each in self._counts if self._clock() >= self._next[each]]:
            self._write(reason)

    def _write(self, reason: str) -> None:
        self._next[reason] = self._clock() + self._every_s
        _log.warning("api.refused", reason=reason, count=self._counts.pop(reason))


def is_keyless(url: bytes, fields: Iterable[Field]) -> bool:
    """Return whether a request with a body lacks the key that its URL needs.

    Args:
        url: as in the request line.
        fields: of the head, names in lower case.
    """
    if not url.startswith(_NEEDS_A_KEY):
        return False
    head = dict(fields)
    has_body = b"transfer-encoding" in head or head.get(b"content-length", b"0") != b"0"
    return has_body and b"authorization" not in head


def last_response(refused: Refused, fields: Sequence[Field], url: bytes) -> bytes:
    """Return a refusal as the last response of a connection.

    Args:
        refused: the refusal.
        fields: of every response.
        url: of the request, if it is known already.
    """
    path = url.partition(b"?")[0].decode("ascii", "replace") if refused.status == HTTPStatus.UNAUTHORIZED else None
    content = json.dumps(document(refused, path)).encode()
    more = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers_of(refused),
    }
    every = [*fields, *((name.lower().encode(), value.encode()) for name, value in more.items())]
    lines = [b"%b: %b\r\n" % field for field in every]
    return b"".join([STATUS_LINE[refused.status], *lines, b"\r\n", content])
