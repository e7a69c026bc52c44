"""Redis on loopback in the ways in which people have it: a password, an ACL, TLS, a socket, Sentinel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "fake-secret-redis"
_ANSWERS_WITHIN_S = 60


class RedisServer:
    """One server, or one Sentinel, that keeps nothing on disk."""

    def __init__(
        self,
        folder: Path,
        program: Path,
        lines: list[str],
        *,
        tls: tuple[Path, Path] | None = None,
        sentinel: bool = False,
    ) -> None:
        """Configure it.

        Args:
            folder: its own.
            program: `redis-server`.
            lines: its configuration, but for where it listens.
            tls: a file with its key and certificate, and the authority's certificate; None: it speaks none.
            sentinel: whether it watches others.
        """
        self.port = free_port()
        self._folder, self._program, self._mode = folder, program, ["--sentinel"] if sentinel else []
        self._client: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "password": PASSWORD}
        if tls is None:
            lines = [f"port {self.port}", *lines]
        else:
            identity, authority = tls
            self._client |= {"ssl": True, "ssl_ca_certs": str(authority)}
            files = {"cert": identity, "key": identity, "ca-cert": authority}
            lines = [*(f"tls-{name}-file {path}" for name, path in files.items()), *lines]
            lines = ["port 0", f"tls-port {self.port}", "tls-auth-clients no", *lines]
        if not sentinel:
            lines = ['save ""', "maxmemory-policy noeviction", *lines]
        (folder / "redis.conf").write_text("\n".join(["bind 127.0.0.1", f"dir {folder}", *lines]) + "\n")

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = self._folder / "redis.log"
        self._child = Child([self._program, self._folder / "redis.conf", *self._mode], log=log, cwd=self._folder)
        there = wait_until(
            self._answers, timeout_s=_ANSWERS_WITHIN_S, poll_s=0.1, alive=lambda: self._child.poll() is None
        )
        assert there, log.read_text()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """Return a client of it."""
        return redis.Redis(**self._client, socket_timeout=5)

    def stop(self) -> None:
        """Stop it."""
        self._child.stop()
