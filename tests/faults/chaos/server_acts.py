"""What befalls the broker and the database: killed, emptied, frozen, full, cut off."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import redis

from worker.db.pool import conninfo

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.lanes import Row, Scene

_CONNECTIONS_MAX = 210
_CUT = """
  SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
  WHERE pid <> pg_backend_pid() AND datname = current_database() AND random() < %(share)s"""


def _client(scene: Scene) -> redis.Redis:
    return redis.Redis.from_url(scene.cluster.valkey.url, socket_timeout=5)


@dataclass(frozen=True)
class KillBroker:
    """SIGKILL for Valkey; it comes back empty."""

    name: str = "broker_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        lost = time.time()
        scene.cluster.valkey.kill()
        scene.pause(chance.uniform(0.0, 2.0))
        scene.cluster.valkey.start()
        return {"lost": lost, "back": time.time()}


@dataclass(frozen=True)
class FlushBroker:
    """FLUSHALL: everything that was in flight is gone, and nobody hears of it."""

    name: str = "broker_flushed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:  # noqa: ARG002 - there is no choice
        """Do it."""
        with _client(scene) as client:
            lost = time.time()
            client.flushall()
        return {"lost": lost, "back": time.time()}


@dataclass(frozen=True)
class PauseBroker:
    """SIGSTOP for Valkey: connections stay open, and nothing answers."""

    name: str = "broker_paused"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        for_s = chance.uniform(1.0, 6.0)
        scene.cluster.valkey.pause()
        scene.pause(for_s)
        scene.cluster.valkey.resume()
        return {"for_s": for_s, "back": time.time()}


@dataclass(frozen=True)
class FillBroker:
    """No memory left at Valkey for a while: it refuses every write."""

    name: str = "broker_full"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        for_s = chance.uniform(1.0, 4.0)
        with _client(scene) as client:
            client.config_set("maxmemory", 1)
            scene.pause(for_s)
            client.config_set("maxmemory", 0)
        return {"for_s": for_s, "back": time.time()}


@dataclass(frozen=True)
class RestartDatabase:
    """PostgreSQL is stopped `immediate`, which is a crash to it, and started again."""

    name: str = "database_restarted"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        lost = time.time()
        scene.recorder.fault("postgres")
        scene.cluster.postgres.stop("immediate")
        scene.pause(chance.uniform(0.0, 1.5))
        scene.cluster.postgres.start()
        return {"lost": lost, "back": time.time()}


@dataclass(frozen=True)
class CutSessions:
    """pg_terminate_backend for some of the sessions."""

    name: str = "sessions_cut"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        rows = scene.cluster.ask(_CUT, share=chance.choice((0.2, 0.5, 1.0)))
        return {"sessions": rows[0]["n"]} if rows else None


@dataclass(frozen=True)
class ExhaustConnections:
    """Every connection that PostgreSQL has to give is taken for a while."""

    name: str = "connections_exhausted"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        url = conninfo(scene.cluster.database.url)
        for_s = chance.uniform(1.0, 3.0)
        with ExitStack() as taken:
            with suppress(psycopg.OperationalError):
                for _ in range(_CONNECTIONS_MAX):
                    taken.callback(psycopg.connect(url, connect_timeout=2).close)
            scene.pause(for_s)
        return {"for_s": for_s}
