"""Faults of the broker and the database: killed, emptied, frozen, full, cut off."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import psycopg
import redis

from worker.db.pool import conninfo

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.fault_injector import FaultContext, Row

_MAX_CONNECTIONS = 210
_CUT = """
  SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
  WHERE pid <> pg_backend_pid() AND datname = current_database() AND random() < %(share)s"""


def _client(context: FaultContext) -> redis.Redis:
    return redis.Redis.from_url(context.cluster.valkey.url, socket_timeout=5)


def broker_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for Valkey; it comes back empty."""
    lost = time.time()
    context.cluster.valkey.kill()
    context.pause(chance.uniform(0.0, 2.0))
    context.cluster.valkey.start()
    return {"lost": lost, "back": time.time()}


def broker_flushed(context: FaultContext, chance: random.Random) -> Row | None:  # noqa: ARG001 - there is no choice
    """FLUSHALL: every message is lost, and no client gets an error."""
    with _client(context) as client:
        lost = time.time()
        client.flushall()
    return {"lost": lost, "back": time.time()}


def broker_paused(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGSTOP for Valkey: connections stay open without an answer."""
    for_s = chance.uniform(1.0, 6.0)
    context.cluster.valkey.pause()
    context.pause(for_s)
    context.cluster.valkey.resume()
    return {"for_s": for_s, "back": time.time()}


def broker_full(context: FaultContext, chance: random.Random) -> Row | None:
    """Valkey is out of memory for a while: it refuses every write."""
    for_s = chance.uniform(1.0, 4.0)
    with _client(context) as client:
        client.config_set("maxmemory", 1)
        context.pause(for_s)
        client.config_set("maxmemory", 0)
    return {"for_s": for_s, "back": time.time()}


def database_restarted(context: FaultContext, chance: random.Random) -> Row | None:
    """PostgreSQL is stopped in mode `immediate`, which it treats as a crash, and started again."""
    lost = time.time()
    context.recorder.fault("postgres")
    context.cluster.postgres.stop("immediate")
    context.pause(chance.uniform(0.0, 1.5))
    context.cluster.postgres.start()
    return {"lost": lost, "back": time.time()}


def sessions_cut(context: FaultContext, chance: random.Random) -> Row | None:
    """pg_terminate_backend for some of the sessions."""
    rows = context.cluster.sql_if_up(_CUT, share=chance.choice((0.2, 0.5, 1.0)))
    return {"sessions": rows[0]["n"]} if rows else None


def connections_exhausted(context: FaultContext, chance: random.Random) -> Row | None:
    """Every connection of PostgreSQL is in use for a while."""
    url = conninfo(context.cluster.database.url)
    for_s = chance.uniform(1.0, 3.0)
    with ExitStack() as taken:
        with suppress(psycopg.OperationalError):
            for _ in range(_MAX_CONNECTIONS):
                taken.callback(psycopg.connect(url, connect_timeout=2).close)
        context.pause(for_s)
    return {"for_s": for_s}
