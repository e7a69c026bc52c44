"""Kombu's Redis transport, with one client object a channel instead of one an operation.

redis-py's client is safe to be shared and cheap to use, but dear to make: made anew for each fetch, acknowledgement and
event it was the largest single cost of a worker's consumer.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """Keeps its client for as long as it keeps its pool of connections."""

    _shared: Any = None
    _shared_pool: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._shared is None or self._shared_pool is not self.pool:
            self._shared_pool = self.pool
            self._shared = super()._create_client()  # type: ignore[no-untyped-call]
        return self._shared


class Transport(redis.Transport):
    """The Redis transport with that channel."""

    Channel = Channel
