"""Takes connections from a listening socket, a few in one turn of the event loop, and never in vain.

asyncio takes as many at once as the backlog has places. Without descriptors it fails as often in one turn, with a
traceback for each.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from api.connections import ACCEPT_BURST

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from api.connections import Connections

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_S = 0.1


class HasFileno(Protocol):
    """A socket, or asyncio's view of one."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Acceptor:
    """Accepts in place of the event loop's own server, which keeps the listening socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: HasFileno,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: Connections,
    ) -> None:
        """Take over the socket's events."""
        self._loop = loop
        self._socket = socket.socket(fileno=os.dup(listening.fileno()))
        self._socket.setblocking(False)
        self._make_protocol = make_protocol
        self._connections = connections
        self._connecting: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        loop.remove_reader(listening.fileno())
        self._listen()

    def close(self) -> None:
        """Accept nothing more."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _listen(self) -> None:
        self._retry = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                accepted, _peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                return
            accepted.setblocking(False)
            if _has_left(accepted):
                accepted.close()
                continue
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # its client has gone meanwhile
            accepted.close()

    def _pause(self) -> None:
        """Make room, and try again in a moment: the socket stays readable, and would be tried without end."""
        self._connections.log.note("no_descriptors")
        self._connections.evict()
        self._loop.remove_reader(self._socket.fileno())
        self._retry = self._loop.call_later(_RETRY_S, self._listen)


def _has_left(accepted: socket.socket) -> bool:
    """Say whether the client closed the connection before it was accepted: then it costs no more than this."""
    with suppress(BlockingIOError, InterruptedError):
        try:
            return not accepted.recv(1, socket.MSG_PEEK)
        except OSError as error:
            if isinstance(error, (BlockingIOError, InterruptedError)):
                raise
            return True
    return False
