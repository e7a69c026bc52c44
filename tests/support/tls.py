"""A TLS server in front of a server on loopback that has no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CLIENT_HELLO = 0x16
"""The first byte of a TLS client: the type of a handshake record."""


class TlsRelay:
    """Terminates TLS on ``port`` (the attribute) and passes the decrypted bytes on, both ways."""

    def __init__(self, target_port: int, identity: Path, *, client_authority: Path | None = None) -> None:
        """Listen at once.

        Args:
            target_port: of the server behind it.
            identity: its key and certificate.
            client_authority: clients must have a certificate that it has signed.
        """
        self._target = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity)
        if client_authority is not None:
            self._context.load_verify_locations(client_authority)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # errors that clients cause are expected
        serving = asyncio.start_server(self._serve, sock=self._listener, ssl=self._context)
        server = self._loop.run_until_complete(serving)
        self._loop.run_forever()
        server.close()
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._abort_connections()
        self._loop.close()

    def _abort_connections(self) -> None:
        """Close the open connections; of some the TLS handshake or closure may be in progress."""
        for _ in range(3):
            transports: list[Any] = list(vars(self._loop)["_transports"].values())
            for transport in transports:
                transport.abort()
            self._loop.call_soon(self._loop.stop)  # after the iteration that closes them
            self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, to_server), _carry(from_server, writer))

    def close(self) -> None:
        """End all connections and stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
