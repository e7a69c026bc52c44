"""Redis-protocol servers as people run them beside the plain one: on a Unix socket, and watched by a sentinel."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import redis

from tests.support.deadline import DEADLINE_S
from worker.local.binaries import valkey_server
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD, SENTINEL_PASSWORD = "fake-secret-redis", "fake-secret-watcher"
MASTER = "uploads"


class Server:
    """One server, or one sentinel, that runs until it is stopped."""

    def __init__(self, folder: Path, settings: str, *options: str, program: Path | None = None, **client: Any) -> None:
        """Start it, Valkey if no other ``program``, and wait until it answers.

        ``client`` are the arguments of redis-py's client.
        """
        folder.mkdir()
        config = folder / "server.conf"
        config.write_text(f"dir {folder}\n{settings}")
        self._child = Child([program or valkey_server(), config, *options], log=folder / "server.log")
        self.client = redis.Redis(decode_responses=True, **client)
        assert wait_until(self._answers, timeout_s=DEADLINE_S), (folder / "server.log").read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """SIGKILL."""
        self.client.close()
        self._child.kill()


@contextlib.contextmanager
def on_a_socket(folder: Path, program: Path | None = None) -> Iterator[tuple[Server, str]]:
    """A server without a port; yields it and the path of its socket, which has a blank in it."""
    path = str(folder / "a socket")
    settings = f'port 0\nunixsocket "{path}"\nrequirepass {PASSWORD}\nsave ""\n'
    server = Server(folder / "server", settings, program=program, unix_socket_path=path, password=PASSWORD)
    yield server, path
    server.kill()


class Sentinels:
    """A master, its replica, and a sentinel that makes the one the other when the first is gone."""

    def __init__(self, folder: Path, program: Path | None = None) -> None:
        """Start all three, Valkeys if no other ``program``."""
        self._ports = [free_port() for _ in range(2)]
        common = f'bind 127.0.0.1\nsave ""\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\n'
        first, second = self._ports
        client: dict[str, Any] = {"program": program, "host": "127.0.0.1", "password": PASSWORD}
        self.master = Server(folder / "first", f"{common}port {first}\n", port=first, **client)
        replica = f"{common}port {second}\nreplicaof 127.0.0.1 {first}\nrepl-diskless-sync-delay 0\n"
        self.replica = Server(folder / "second", replica, port=second, **client)
        ready = wait_until(lambda: self._link() == "up", timeout_s=DEADLINE_S, poll_s=0.1)
        assert ready, (folder / "second" / "server.log").read_text()
        self.port = free_port()
        watch = f"sentinel monitor {MASTER} 127.0.0.1 {first} 1\nsentinel auth-pass {MASTER} {PASSWORD}\n"
        watch += f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 10000\n"
        settings = f"bind 127.0.0.1\nport {self.port}\nrequirepass {SENTINEL_PASSWORD}\n{watch}"
        client |= {"password": SENTINEL_PASSWORD}
        self.sentinel = Server(folder / "sentinel", settings, "--sentinel", port=self.port, **client)
        knows = wait_until(lambda: len(self._replicas()) == 1, timeout_s=DEADLINE_S, poll_s=0.1)
        assert knows, (folder / "sentinel" / "server.log").read_text()

    def _link(self) -> Any:
        return self.replica.client.info("replication").get("master_link_status")

    def _replicas(self) -> list[Any]:
        return [each for each in self.sentinel.client.sentinel_slaves(MASTER) if each["master-link-status"] == "ok"]

    @property
    def environ(self) -> dict[str, str]:
        """The settings by which it is the broker."""
        nowhere = f"sentinel://127.0.0.1:{free_port()}"
        return {
            "SLICEWAY_BROKER_URL": f"sentinel://:{PASSWORD}@127.0.0.1:{self.port}/1;{nowhere}",
            "SLICEWAY_BROKER_SENTINEL_MASTER": MASTER,
            "SLICEWAY_BROKER_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    def lose_master(self) -> None:
        """Kill the master, and wait until the other one is it."""
        self.master.kill()
        changed = wait_until(lambda: self._address()[1] == self._ports[1], timeout_s=DEADLINE_S, poll_s=0.05)
        assert changed, self.sentinel.client.sentinel_masters()

    def _address(self) -> tuple[str, int]:
        address: tuple[str, int] = self.sentinel.client.sentinel_get_master_addr_by_name(MASTER)
        return address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.sentinel, self.replica, self.master):
            each.kill()
