"""A kombu transport whose broker is a tray: what is published lies there, complete, and goes nowhere."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual


class Channel(virtual.Channel):
    """Keeps the last message as it would be sent."""

    last: dict[str, Any]

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        self.last = message


class Transport(virtual.Transport):
    """Needs no server."""

    Channel = Channel
