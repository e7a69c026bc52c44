"""uvicorn's server, with connections accepted by `Acceptor` and long polls that end when it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn

from api.server.acceptor import Acceptor
from api.server.connection_table import connection_table_of
from worker.signals import force_exit_if_database_is_away

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from api.state import AppState


class Server(uvicorn.Server):
    """Accepts connections itself, and ends all long polls as soon as it begins to stop."""

    def __init__(self, config: uvicorn.Config, app_state: AppState) -> None:
        super().__init__(config)
        self.app_state = app_state
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        if self.started and isinstance(loop, asyncio.SelectorEventLoop):  # `Acceptor` needs add_reader
            connections = connection_table_of(self.server_state, self.app_state.settings, loop)
            self._acceptors = [
                Acceptor(loop, listening, self._make_protocol, connections)
                for server in self.servers
                for listening in server.sockets
            ]

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; if the database is away, exit within seconds without the requests that wait for it."""
        if not self.should_exit:
            force_exit_if_database_is_away(self.app_state.settings, 0)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        for acceptor in self._acceptors:
            acceptor.close()
        self.app_state.waiters.stop()
        await super().shutdown(sockets)
