"""HTTP/1.1 connections with limits, for `sliceway api` and for `uvicorn --http api.http_protocol:LimitedProtocol`.

uvicorn's protocol (written for 0.54, its parser is httptools) takes a head of any size, waits for it for ever, parses
every pipelined request at once, and resets a connection whose client still sends when it has been answered.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.connections import connections_of
from api.limits import LINGERING_CLOSE, HeadTooLarge, RequestTimeout, TooManyConnections, UrlTooLong
from api.problems import BadRequest, Unauthenticated
from api.refusing import is_keyless, last_answer
from worker.config.settings import Settings, load_settings

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from worker.errors import Refused

_READ_BYTES = 32 * 1024
"""Taken from a socket at once, which bounds what a connection holds while nothing asks for it."""
_BODY_AHEAD_BYTES = 16 * 1024
"""Of a body, kept before the application takes it; then reading pauses."""
_DROPPED_MAX_BYTES = 16 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"
_FIELD_OVERHEAD_BYTES = 4  # ": " and CRLF
_from_environment = functools.cache(load_settings)


class _Closer:
    """A connection as one answer sees it: closing it waits for a client that still sends."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol, transport: asyncio.Transport) -> None:
        self._protocol = weakref.ref(protocol)  # no cycle: the API's process collects them seldom
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        if (protocol := self._protocol()) is not None:
            protocol.close_after_answer()


class LimitedProtocol(HttpToolsProtocol):
    """One connection. No deadline of its own runs while a request is under way: a long poll is not cut."""

    settings: ClassVar[Settings | None] = None
    """Where the limits are; None: the environment."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Begin with nothing received."""
        super().__init__(config, server_state, app_state, _loop)
        self.limits = self.settings or _from_environment()
        self.timeout_keep_alive = self.limits.api_keep_alive_s  # type: ignore[assignment]
        self.deadline = math.inf
        self._table = connections_of(server_state, self.limits, self.loop)
        self.url = b""
        self._in_head = True  # what comes next belongs to a head; otherwise to a body
        self._head_bytes = 0  # of the fields that were parsed
        self._seen_bytes = 0  # of the head, when it was last looked at
        self._pending_bytes = 0  # of the head, received since then and not parsed yet
        self._refusal: Refused | None = None
        self._dropping = False  # nothing more is parsed
        self._lingering = False  # nothing more is written
        self._dropped_bytes = 0
        self._held, self._held_from = b"", 0  # pipelined, and not parsed before the answer to what came before
        self._closer: _Closer = None  # type: ignore[assignment]

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection into the table, or refuse it."""
        super().connection_made(transport)
        self._closer = _Closer(self, transport)
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES
        self.deadline = self.loop.time() + self.limits.api_head_timeout_s
        if not self._table.enter(self, self.client[0] if self.client else ""):
            self._refuse(TooManyConnections("the process has no room for another connection"), "too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the table."""
        self._table.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client, which takes nothing of an answer, its time."""
        super().pause_writing()
        if not self._lingering:
            self.deadline = self.loop.time() + self.limits.api_send_timeout_s
        self._table.stalled(self)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        if not self._lingering:
            self.deadline = math.inf
        self._table.flowing(self)

    def overdue(self) -> None:
        """End the connection: its head did not come in time, or its client does not take what was written."""
        if self._lingering or self.transport.is_closing() or self._answering():
            if self._answering():
                self._table.log.note("stalled")
            self.transport.abort()
        elif self._seen_bytes or self._pending_bytes:
            self._refuse(RequestTimeout("the request's head did not arrive in time"), "slow_head")
        else:
            self._table.log.note("idle")
            self.deadline = math.inf
            self.transport.close()

    # --- what is received

    def data_received(self, data: bytes) -> None:
        """Parse what was received, one request after the other."""
        if self._dropping:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > _DROPPED_MAX_BYTES:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._feed(data, 0)

    def _feed(self, data: bytes, start: int) -> None:
        """Parse up to the end of each head, so that at most one request waits behind the one being answered."""
        end = len(data)
        while start < end:
            if self._in_head and self._answering():
                self._held, self._held_from = data, start
                self.flow.pause_reading()
                return
            found = data.find(_HEAD_END, start)
            stop = end if found < 0 else found + len(_HEAD_END)
            if not self._parse(data if stop - start == end else data[start:stop]):
                return
            start = stop
        if self._in_head:
            if self.deadline == math.inf and not self._answering():
                self.deadline = self.loop.time() + self.limits.api_head_timeout_s
        elif len(self.cycle.body) >= _BODY_AHEAD_BYTES:
            self.flow.pause_reading()  # until the application asks for it

    def _parse(self, piece: bytes) -> bool:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:  # to what is not served; what follows is of a protocol unknown here
            self.cycle.keep_alive = False
            self._dropping = True
            return False
        except httptools.HttpParserError:
            refusal = self._refusal or BadRequest("the request is no HTTP/1.1", advice="Send HTTP/1.1.")
            self._refusal = refusal.__traceback__ = None  # whose frames hold this connection and all that was read
            self._refuse(refusal, refusal.code)
            return False
        return not self._in_head or self._head_fits(len(piece))

    def _head_fits(self, size: int) -> bool:
        """Bound a head that is not whole, also while it is within one field, of which the parser says nothing."""
        if self._answering():
            return True
        seen = self._head_bytes + len(self.url or b"")
        self._pending_bytes = 0 if seen != self._seen_bytes else self._pending_bytes + size
        self._seen_bytes = seen
        if seen + self._pending_bytes <= self.limits.api_head_max_bytes:
            return True
        self._refuse(self._too_large(), "head_too_large")
        return False

    def _too_large(self) -> Refused:
        return HeadTooLarge(f"the request's head is larger than {self.limits.api_head_max_bytes} bytes")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        self.url += url
        if len(self.url) > self.limits.api_url_max_bytes:
            self._refusal = UrlTooLong(f"the URL is longer than {self.limits.api_url_max_bytes} bytes")
            raise self._refusal

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; one behind a chunked body is counted and ignored, it must not pass for one of the head."""
        self._head_bytes += len(name) + len(value) + _FIELD_OVERHEAD_BYTES
        if self._head_bytes + len(self.url) > self.limits.api_head_max_bytes:
            self._refusal = self._too_large()
            raise self._refusal
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if is_keyless(self.url, self.headers):  # the application would say so, too, at five times the price
            self._refusal = Unauthenticated("the request has no key")
            raise self._refusal
        super().on_headers_complete()
        self._in_head = False
        self.cycle.transport = self._closer  # type: ignore[assignment]
        self.scope["extensions"] = {LINGERING_CLOSE: {}}
        if not self.flow.write_paused:
            self.deadline = math.inf
        self._table.busy(self)

    def on_message_complete(self) -> None:
        """Expect another head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = self._seen_bytes = self._pending_bytes = 0
        self.url = b""

    def on_response_complete(self) -> None:
        """Go on with what was pipelined."""
        super().on_response_complete()
        if self._dropping or self.transport.is_closing():
            return
        if self._held:
            self.flow.pause_reading()
        if self._answering():
            return
        if not self._in_head:  # an application that let the rest of a body come
            self.deadline = self.loop.time() + self.limits.api_body_timeout_s
        (self._table.pipelined if self._held else self._table.idle)(self)

    def go_on(self) -> None:
        """Parse what was pipelined, up to the next request."""
        if self._held and not self._dropping and not self.transport.is_closing():
            self._table.idle(self)
            self.flow.resume_reading()
            (data, start), self._held = (self._held, self._held_from), b""
            self._unset_keepalive_if_required()
            self._feed(data, start)

    def _should_upgrade(self) -> bool:
        return False  # no WebSockets are served; theirs would be connections without these limits

    def close_after_answer(self) -> None:
        """Close the connection after its last answer, gently while its client still sends."""
        whole = self._in_head and not self._held and not self._dropping
        (self.transport.close if whole else self._linger)()

    def shutdown(self) -> None:
        """Close what has no request under way; a client that only hears a refusal is not waited for."""
        if self._lingering:
            self.transport.close()
        else:
            super().shutdown()

    def _refuse(self, refused: Refused, reason: str) -> None:
        """Answer in place of the application, and close."""
        self._table.log.note(reason)
        if self._answering():
            started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.pipeline.clear()
            if started:
                self.transport.abort()
                return
        self.transport.write(last_answer(refused, self.server_state.default_headers, self.url))
        self._linger()

    def _linger(self) -> None:
        """Say that nothing follows, and read on for a while.

        A socket that is closed with unread bytes is reset, and its client may lose the answer.
        """
        self._dropping = self._lingering = True
        self._held = b""
        self._unset_keepalive_if_required()
        self.deadline = self.loop.time() + self.limits.api_linger_s
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._table.lingering(self)


def protocol_for(settings: Settings) -> type[LimitedProtocol]:
    """Return the protocol with the limits of these settings."""
    return type("LimitedProtocol", (LimitedProtocol,), {"settings": settings})
