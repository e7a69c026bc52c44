"""Accepts connections from a listening socket: a few in one turn of the event loop, and none without descriptors.

asyncio accepts as many connections at once as the backlog has places. Without descriptors it fails as often in one
turn, with a traceback for each.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from api.server.connection_table import ACCEPT_BURST

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from api.server.connection_table import ConnectionTable

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_S = 0.1


class Acceptor:
    """Accepts in place of the event loop's own server, which keeps the listening socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: ConnectionTable,
    ) -> None:
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
        """Stop accepting."""
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
            if _is_closed_by_client(accepted):
                accepted.close()
                continue
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # the client has closed it meanwhile
            accepted.close()

    def _pause(self) -> None:
        """Free a descriptor, and retry after a pause: the socket stays readable, so that retries would never end."""
        self._connections.log.count("no_descriptors")
        self._connections.evict()
        self._loop.remove_reader(self._socket.fileno())
        self._retry = self._loop.call_later(_RETRY_S, self._listen)


def _is_closed_by_client(accepted: socket.socket) -> bool:
    """Return whether the client closed the connection before it was accepted; then it gets no protocol and no task."""
    try:
        return not accepted.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
