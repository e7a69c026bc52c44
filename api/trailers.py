"""HTTP/1.1 connections without trailer fields."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WithoutTrailers(HttpToolsProtocol):
    """uvicorn's protocol (written for 0.54), which adds the fields behind a chunked body to those of the head.

    There they pass for fields that proxies have looked at: a key, a content type, who is behind a proxy.
    """

    _in_head = True

    def on_message_begin(self) -> None:
        """Expect a head."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take what comes from now on for a body and its trailer."""
        self._in_head = False
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; drop one of the trailer."""
        if self._in_head:
            super().on_header(name, value)
