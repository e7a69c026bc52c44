"""`sliceway doctor`: looks at everything an installation needs, and says of each whether it is right or what to do."""

from __future__ import annotations

import email.utils
import os
import ssl
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import httpx
import psycopg
import redis
from kombu.connection import Connection

from worker.db import pending_migrations, plain_url
from worker.errors import SlicewayError, Transient
from worker.limits import MIB
from worker.sources.file import usable
from worker.stores.registry import open_store
from worker.surroundings import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worker.settings import Profiles, Settings, StoreProfile

TIMEOUT_S = 10.0
"""No check may take longer."""
_CONNECT_S = 4
_CLOCK_SLACK_S = 30.0
"""Signatures of stores are good for minutes; a clock that is further off will get them refused."""
_OLDEST_POSTGRES = 14
_IDLE_LEAST_S = 60
_FREE_LEAST_BYTES = 256 * MIB


class Level(StrEnum):
    """How a check has come out."""

    OK = "ok"
    NOTE = "note"
    """Works, and could be better."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found; ``advice`` is what to do, where there is something."""

    check: str
    level: Level
    text: str
    advice: str = ""


Check = tuple[str, "Callable[[], Iterator[Finding]]"]


def examine(settings: Settings) -> list[Finding]:
    """Run every check, all at once, whatever becomes of the others."""
    checks: list[Check] = [
        ("database", lambda: _database(settings)),
        ("broker", lambda: _broker(settings.broker_url)),
        ("state folder", lambda: _state_folder(settings)),
    ]
    found = [Finding("settings", Level.OK, "every variable is known and right")]
    try:
        profiles = settings.profiles
    except SlicewayError as error:
        found.append(Finding("stores file", Level.FAILED, error.message, error.advice))
    else:
        checks += [*_store_checks(list(profiles.stores.values())), ("roots", lambda: _roots(profiles))]
    return found + _run(checks)


def examine_stores(profiles: Sequence[StoreProfile]) -> list[Finding]:
    """Run the checks of these stores, all at once."""
    return _run(_store_checks(profiles))


def _run(checks: Sequence[Check]) -> list[Finding]:
    running = [_Running(name, check) for name, check in checks]
    until = time.monotonic() + TIMEOUT_S
    return [finding for each in running for finding in each.findings(until)]


class _Running:
    """A check in a thread of its own, which is left behind if it does not end."""

    def __init__(self, name: str, check: Callable[[], Iterator[Finding]]) -> None:
        self._name = name
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, args=(check,), daemon=True)
        self._thread.start()

    def _run(self, check: Callable[[], Iterator[Finding]]) -> None:
        try:
            for finding in check():
                self._found.append(finding)
        except SlicewayError as error:
            self._found.append(Finding(self._name, Level.FAILED, error.message, error.advice))
        except Exception as error:  # noqa: BLE001 - the doctor goes on, whatever a patient does
            self._found.append(Finding(self._name, Level.FAILED, first_line(error), "Correct its address or start it."))

    def findings(self, until: float) -> list[Finding]:
        self._thread.join(max(0.0, until - time.monotonic()))
        found = list(self._found)
        if self._thread.is_alive():
            text = f"no answer within {TIMEOUT_S:.0f} s"
            found.append(Finding(self._name, Level.FAILED, text, "See whether it hangs, or a firewall drops packets."))
        return found


def _database(settings: Settings) -> Iterator[Finding]:
    with psycopg.connect(plain_url(settings.database_url), connect_timeout=_CONNECT_S, autocommit=True) as connection:
        version = connection.info.server_version // 10_000
        where = f"PostgreSQL {version} at {connection.info.host}:{connection.info.port}/{connection.info.dbname}"
        if version < _OLDEST_POSTGRES:
            yield Finding("database", Level.FAILED, where, f"Use PostgreSQL {_OLDEST_POSTGRES} or newer.")
        else:
            yield Finding("database", Level.OK, where)
        yield _clock("database", connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone())
        pending = pending_migrations(settings.database_url)
        if pending:
            text = f"it lacks {len(pending)} of our migrations: {', '.join(pending)}"
            yield Finding("migrations", Level.FAILED, text, "Run `sliceway migrate`.")
            return
        yield Finding("migrations", Level.OK, "up to date")
        yield _workers(connection, settings.timers.dead_after_s)
    if settings.database_direct_url:
        psycopg.connect(plain_url(settings.database_direct_url), connect_timeout=_CONNECT_S).close()
        yield Finding("database, directly", Level.OK, "reachable past the pooler")


def _clock(whose: str, row: tuple[float, ...] | None) -> Finding:
    assert row is not None
    off_s = time.time() - row[0]
    name = f"clock against {whose}"
    if abs(off_s) > _CLOCK_SLACK_S:
        text = f"this machine is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
        return Finding(name, Level.FAILED, text, "Let both machines follow a time server (NTP).")
    return Finding(name, Level.OK, f"within {max(1, round(abs(off_s)))} s")


def _workers(connection: psycopg.Connection, dead_after_s: float) -> Finding:
    row = connection.execute(
        "SELECT count(*) FROM worker WHERE ended_at IS NULL AND heartbeat_at > now() - make_interval(secs => %s)",
        (dead_after_s,),
    ).fetchone()
    assert row is not None
    if not row[0]:
        return Finding("workers", Level.NOTE, "none is running", "Start one: `sliceway worker`.")
    return Finding("workers", Level.OK, f"{row[0]} processes running")


def _broker(url: str) -> Iterator[Finding]:
    if not url.startswith(("redis://", "rediss://")):
        with Connection(url, connect_timeout=_CONNECT_S) as connection:
            connection.ensure_connection(max_retries=0, timeout=_CONNECT_S)
        yield Finding("broker", Level.OK, "reachable")
        return
    with redis.Redis.from_url(url, socket_timeout=_CONNECT_S, socket_connect_timeout=_CONNECT_S) as client:
        info = client.info("server")
        yield Finding("broker", Level.OK, f"Redis protocol, version {info.get('redis_version', 'unknown')}")
        try:
            yield from _broker_settings(client)
        except redis.ResponseError:
            yield Finding(
                "broker settings", Level.NOTE, "it does not show them", "See that maxmemory-policy is noeviction."
            )


def _broker_settings(client: redis.Redis) -> Iterator[Finding]:
    config = client.config_get("maxmemory-policy", "appendonly", "save", "timeout")
    policy = config.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: it may drop messages, and jobs stall until they are published again"
        yield Finding("broker memory", Level.FAILED, text, "Set maxmemory-policy to noeviction.")
    else:
        yield Finding("broker memory", Level.OK, "it evicts nothing")
    if 0 < int(config.get("timeout") or 0) < _IDLE_LEAST_S:
        text = f"it closes connections that are idle for {config['timeout']} s"
        yield Finding("broker timeout", Level.NOTE, text, f"Set timeout to 0, or to {_IDLE_LEAST_S} and more.")
    if config.get("appendonly") != "yes" and not config.get("save"):
        yield Finding("broker persistence", Level.OK, "none, and none is needed: all in it can be made again")


def _store_checks(profiles: Sequence[StoreProfile]) -> list[Check]:
    if not profiles:
        none = Finding("stores", Level.NOTE, "there is none", "Name some in the stores file: SLICEWAY_STORES_FILE.")
        return [("stores", lambda: iter([none]))]
    return [(f"store {profile.name}", partial(_store, profile)) for profile in profiles]


def _store(profile: StoreProfile) -> Iterator[Finding]:
    name = f"store {profile.name}"
    store = open_store(profile)
    try:
        store.check()
    except Transient as error:  # what a job would wait out; here someone is looking
        yield Finding(name, Level.FAILED, error.message, f"See whether {profile.endpoint} is right, and runs.")
        return
    finally:
        store.close()
    yield Finding(name, Level.OK, f"{profile.protocol} at {profile.endpoint}, bucket {profile.bucket}")
    trusted = ssl.create_default_context(cafile=profile.ca_file)
    with httpx.Client(verify=trusted, proxy=profile.proxy, trust_env=False, timeout=_CONNECT_S) as client:
        answer = client.head(profile.endpoint)
    if date := email.utils.parsedate_tz(answer.headers.get("Date", "")):
        yield _clock(name, (float(email.utils.mktime_tz(date)),))


def _roots(profiles: Profiles) -> Iterator[Finding]:
    for root in profiles.roots.values():
        if why := usable(root):
            text = f"{root.path} {why}"
            yield Finding(f"root {root.name}", Level.FAILED, text, "Mount it here, or run this where the workers run.")
        else:
            yield Finding(f"root {root.name}", Level.OK, str(root.path))
    if not profiles.roots:
        yield Finding("roots", Level.NOTE, "there is none", "Name some in the stores file: SLICEWAY_STORES_FILE.")


def _state_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_dir
    if folder is None:
        return
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        text = f"{folder} is no folder that can be written to"
        yield Finding(
            "state folder", Level.FAILED, text, "Make it, give it to this user, or change SLICEWAY_STATE_DIR."
        )
        return
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < _FREE_LEAST_BYTES:
        yield Finding("state folder", Level.FAILED, f"{folder} is nearly full", "Make room on its disk.")
    else:
        yield Finding("state folder", Level.OK, str(folder))
