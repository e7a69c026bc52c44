"""A kombu transport that keeps the last message as it would be sent, and connects to nothing.

Written for kombu 5.7: `virtual.Channel._put`.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual


class Channel(virtual.Channel):
    """Keeps the last message as it would be sent."""

    last: dict[str, object]

    def _put(self, queue: str, message: dict[str, object], **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        self.last = message


class Transport(virtual.Transport):
    """Needs no server."""

    Channel = Channel
