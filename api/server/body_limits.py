"""Limits on request bodies, for every ASGI server: size, time, and a response that begins before the body's end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from api.problems import TooLarge
from api.server.refusals import LINGERING_CLOSE, RequestTimeout
from worker.protocols.spec import BATCH_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from worker.config.api_limits import ApiLimits

_MAX_DROPPED_BYTES = 2 * BATCH_MAX_BYTES
_UNKNOWN = -1


class BodyLimits:
    """Middleware. A request without a body passes unchanged, so that a long poll can take its time."""

    def __init__(self, app: ASGIApp, limits: ApiLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        declared = _declared_bytes(scope) if scope["type"] == "http" else 0
        if declared == 0:
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, send, declared, self._limits)
        await self._app(scope, body.receive, body.send)


def _declared_bytes(scope: Scope) -> int:
    """Return the length of the request's body; `_UNKNOWN` if the head does not declare it."""
    fields: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for name, value in fields:
        if name == b"content-length":
            return int(value) if value.isdigit() else _UNKNOWN
        if name == b"transfer-encoding":
            return _UNKNOWN
    return 0 if scope["http_version"].startswith("1") else _UNKNOWN  # HTTP/2 ends a body without having declared it


class _Body:
    """The body of one request, and the response to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, declared: int, limits: ApiLimits) -> None:
        self._receive, self._send = receive, send
        self._limits = limits
        self._declared = declared
        self._expects = any(name == b"expect" for name, _ in scope["headers"])
        self._server_lingers = LINGERING_CLOSE in (scope.get("extensions") or {})
        self._can_close = scope["http_version"].startswith("1")
        self._received_bytes = 0
        self._waited_s = 0.0
        self._complete = False
        self._cut = False

    async def receive(self) -> Message:
        """Return the next piece.

        Raises:
            TooLarge: the body is larger than any request's limit.
            RequestTimeout: the body took longer than its time limit, and came slower than the low speed.
        """
        if self._complete:
            return await self._receive()
        self._check_size(self._declared)
        loop = asyncio.get_running_loop()
        began = loop.time()
        allowed = self._limits.api_body_timeout_s + self._received_bytes / self._limits.api_low_speed_bytes_per_s
        try:
            async with asyncio.timeout_at(began + allowed - self._waited_s):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout("the request's body did not arrive in time") from None
        self._waited_s += loop.time() - began  # only the time spent in receive() counts against the client
        self._record(message)
        self._check_size(self._received_bytes)
        return message

    @staticmethod
    def _check_size(size: int) -> None:
        if size > BATCH_MAX_BYTES:
            raise TooLarge(f"the body is larger than {BATCH_MAX_BYTES} bytes")

    def _record(self, message: Message) -> None:
        self._received_bytes += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        """Send a piece of the response. A response that begins before the body's end is the connection's last."""
        if self._complete:
            await self._send(message)
            return
        if message["type"] == "http.response.start":
            await self._read_what_has_arrived()
            if not self._complete:
                self._cut = True
                if self._can_close:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await self._send(message)
        elif message.get("more_body", False) or self._server_lingers or not self._cut:
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_what_has_arrived(self) -> None:
        """Read a body that has arrived in the meantime, so that the connection can be kept."""
        if self._expects:  # receive() would send "100 Continue"
            return
        piece = asyncio.ensure_future(self._receive())
        await asyncio.sleep(0)
        if piece.done():
            self._record(piece.result())
        else:
            piece.cancel()

    async def _drain(self) -> None:
        """Read on for a while: a connection that is closed with unread bytes is reset, and the response may be lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.api_linger_s):
                while not self._complete and self._received_bytes <= _MAX_DROPPED_BYTES:
                    self._record(await self._receive())
