"""HTTP/1.1 connections with limits; also for `uvicorn --http api.server.http_protocol:LimitedProtocol`.

uvicorn's protocol (written for 0.54, its parser is httptools) takes a head of any size, waits for it without limit,
parses all pipelined requests at once, and resets a connection whose client still sends when the response is complete.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import BadRequest, Unauthenticated
from api.server import refusals
from api.server.connection_table import connection_table_of
from worker.config.settings import Settings, load_settings

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from worker.errors import Refused

_READ_BYTES = 32 * 1024
"""Read from a socket at once, which bounds what a connection holds while the application reads nothing."""
_BODY_BUFFER_BYTES = 16 * 1024
"""Of a body, held before the application reads it; then reading from the socket pauses."""
_MAX_DROPPED_BYTES = 16 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"
_FIELD_OVERHEAD_BYTES = 4  # ": " and CRLF
_from_environment = functools.cache(load_settings)


class _Closer:
    """The transport as one response sees it: closing it lingers while the client still sends."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol, transport: asyncio.Transport) -> None:
        self._protocol = weakref.ref(protocol)  # no cycle: the API's process collects garbage seldom
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        if (protocol := self._protocol()) is not None:
            protocol.close_after_response()


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It has no deadline while a request is under way, so that a long poll can take its time."""

    settings: ClassVar[Settings | None] = None
    """The limits; None: those of the environment."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = self.settings or _from_environment()
        self.timeout_keep_alive = self.limits.api_keep_alive_s  # type: ignore[assignment]
        self.deadline = math.inf
        self._table = connection_table_of(server_state, self.limits, self.loop)
        self.url = b""
        self._in_head = True  # the next bytes belong to a head; otherwise to a body
        self._head_bytes = 0  # of the fields that were parsed
        self._seen_bytes = 0  # of the head, at the last check
        self._pending_bytes = 0  # of the head, received since then and not parsed yet
        self._refusal: Refused | None = None
        self._dropping = False  # received bytes are no longer parsed
        self._lingering = False  # nothing more is written
        self._dropped_bytes = 0
        self._held, self._held_from = b"", 0  # pipelined, and parsed only after the response to the request before
        self._closer: _Closer = None  # type: ignore[assignment]

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Add the connection to the table, or refuse it."""
        super().connection_made(transport)
        self._closer = _Closer(self, transport)
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES
        self.deadline = self.loop.time() + self.limits.api_head_timeout_s
        if not self._table.add(self, self.client[0] if self.client else ""):
            error = refusals.TooManyConnections("the process has no room for another connection")
            self._refuse(error, "too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the table."""
        self._table.remove(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Set a deadline for the client, which does not read the response."""
        super().pause_writing()
        if not self._lingering:
            self.deadline = self.loop.time() + self.limits.api_send_timeout_s
        self._table.mark_stalled(self)

    def resume_writing(self) -> None:
        """Continue with the response."""
        super().resume_writing()
        if not self._lingering:
            self.deadline = math.inf
        self._table.mark_flowing(self)

    def on_deadline(self) -> None:
        """End the connection: its head did not arrive in time, or its client does not read the response."""
        if self._lingering or self.transport.is_closing() or self._responding():
            if self._responding():
                self._table.log.count("stalled")
            self.transport.abort()
        elif self._seen_bytes or self._pending_bytes:
            self._refuse(refusals.RequestTimeout("the request's head did not arrive in time"), "slow_head")
        else:
            self._table.log.count("idle")
            self.deadline = math.inf
            self.transport.close()

    # --- receiving

    def data_received(self, data: bytes) -> None:
        """Parse what was received, one request after the other."""
        if self._dropping:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > _MAX_DROPPED_BYTES:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._feed(data, 0)

    def _feed(self, data: bytes, start: int) -> None:
        """Parse up to the end of each head, so that at most one request waits behind the current one."""
        end = len(data)
        while start < end:
            if self._in_head and self._responding():
                self._held, self._held_from = data, start
                self.flow.pause_reading()
                return
            found = data.find(_HEAD_END, start)
            stop = end if found < 0 else found + len(_HEAD_END)
            if not self._parse(data if stop - start == end else data[start:stop]):
                return
            start = stop
        if self._in_head:
            if self.deadline == math.inf and not self._responding():
                self.deadline = self.loop.time() + self.limits.api_head_timeout_s
        elif len(self.cycle.body) >= _BODY_BUFFER_BYTES:
            self.flow.pause_reading()  # until the application reads

    def _parse(self, piece: bytes) -> bool:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:  # to a protocol that is not served; what follows cannot be parsed
            self.cycle.keep_alive = False
            self._dropping = True
            return False
        except httptools.HttpParserError:
            refusal = self._refusal or BadRequest("the request is no HTTP/1.1", advice="Send HTTP/1.1.")
            self._refusal = refusal.__traceback__ = None  # its frames hold this connection and all that was read
            self._refuse(refusal, refusal.code)
            return False
        return not self._in_head or self._head_fits(len(piece))

    def _head_fits(self, size: int) -> bool:
        """Bound an incomplete head, also within one field, which the parser reports only when it is complete."""
        if self._responding():
            return True
        seen = self._head_bytes + len(self.url or b"")
        self._pending_bytes = 0 if seen != self._seen_bytes else self._pending_bytes + size
        self._seen_bytes = seen
        if seen + self._pending_bytes <= self.limits.api_head_max_bytes:
            return True
        self._refuse(self._head_too_large(), "head_too_large")
        return False

    def _head_too_large(self) -> Refused:
        return refusals.HeadTooLarge(f"the request's head is larger than {self.limits.api_head_max_bytes} bytes")

    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_url(self, url: bytes) -> None:
        """Add a piece of the URL."""
        self.url += url
        if len(self.url) > self.limits.api_url_max_bytes:
            self._refusal = refusals.UrlTooLong(f"the URL is longer than {self.limits.api_url_max_bytes} bytes")
            raise self._refusal

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field; one in a trailer is counted and ignored, so that it cannot pass for one of the head."""
        self._head_bytes += len(name) + len(value) + _FIELD_OVERHEAD_BYTES
        if self._head_bytes + len(self.url) > self.limits.api_head_max_bytes:
            self._refusal = self._head_too_large()
            raise self._refusal
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application."""
        if refusals.is_keyless(self.url, self.headers):  # the application would refuse it, too, at five times the cost
            self._refusal = Unauthenticated("the request has no key")
            raise self._refusal
        super().on_headers_complete()
        self._in_head = False
        self.cycle.transport = self._closer  # type: ignore[assignment]
        self.scope["extensions"] = {refusals.LINGERING_CLOSE: {}}
        if not self.flow.write_paused:
            self.deadline = math.inf
        self._table.mark_busy(self)

    def on_message_complete(self) -> None:
        """Expect another head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = self._seen_bytes = self._pending_bytes = 0
        self.url = b""

    def on_response_complete(self) -> None:
        """Queue the next pipelined request, if there is one."""
        super().on_response_complete()
        if self._dropping or self.transport.is_closing():
            return
        if self._held:
            self.flow.pause_reading()
        if self._responding():
            return
        if not self._in_head:  # the application did not read the rest of the body
            self.deadline = self.loop.time() + self.limits.api_body_timeout_s
        (self._table.queue_pipelined if self._held else self._table.mark_idle)(self)

    def parse_pipelined(self) -> None:
        """Parse what was held, up to the next request."""
        if self._held and not self._dropping and not self.transport.is_closing():
            self._table.mark_idle(self)
            self.flow.resume_reading()
            (data, start), self._held = (self._held, self._held_from), b""
            self._unset_keepalive_if_required()
            self._feed(data, start)

    def _should_upgrade(self) -> bool:
        return False  # no WebSocket is served; its connection would have none of these limits

    # --- the end

    def close_after_response(self) -> None:
        """Close the connection after its last response; linger while its client still sends."""
        complete = self._in_head and not self._held and not self._dropping
        (self.transport.close if complete else self._linger)()

    def shutdown(self) -> None:
        """Close the connection if it has no request under way; a lingering one is closed at once."""
        if self._lingering:
            self.transport.close()
        else:
            super().shutdown()

    def _refuse(self, refused: Refused, reason: str) -> None:
        """Respond in place of the application, and close."""
        self._table.log.count(reason)
        if self._responding():
            started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.pipeline.clear()
            if started:
                self.transport.abort()
                return
        self.transport.write(refusals.last_response(refused, self.server_state.default_headers, self.url))
        self._linger()

    def _linger(self) -> None:
        """Send the end of the stream, and read on for a while.

        A socket that is closed with unread bytes is reset, and its client may lose the response.
        """
        self._dropping = self._lingering = True
        self._held = b""
        self._unset_keepalive_if_required()
        self.deadline = self.loop.time() + self.limits.api_linger_s
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._table.mark_lingering(self)


def protocol_for(settings: Settings) -> type[LimitedProtocol]:
    """Return the protocol with the limits of these settings."""
    return type("LimitedProtocol", (LimitedProtocol,), {"settings": settings})
