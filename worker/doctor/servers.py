"""Checks the broker, the stores and this machine's folders."""

from __future__ import annotations

import email.utils
import os
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import redis
from kombu.connection import Connection

from worker.config import broker_tls
from worker.config.authorities import unusable_authorities
from worker.doctor import sentinels
from worker.doctor.consumers import consumers
from worker.doctor.findings import CONNECT_S, Finding, Level, clock
from worker.errors import StoreUnusable, Transient
from worker.http.errors import TLS
from worker.http.proxy import for_httpx
from worker.protocols.spec import MIB
from worker.sources.file import usable
from worker.stores.registry import open_store
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from worker.config.broker_url import BrokerUrl
    from worker.config.profiles import Profiles, StoreProfile
    from worker.config.settings import Settings
    from worker.doctor.findings import Check

_MIN_IDLE_TIMEOUT_S = 60
_MIN_FREE_BYTES = 256 * MIB
_FULL, _NEARLY_FULL = 0.9, 0.7
"""Parts of `maxmemory`. A full broker refuses messages, so that work is dispatched late or not at all."""


def broker(url: BrokerUrl) -> Iterator[Finding]:
    """Connect to the broker. Of Redis or Valkey, also check that it evicts nothing and has room."""
    try:
        yield from _broker(url)
    except Exception as error:
        found = broker_tls.failure(error)
        if found is None and url.tls is not None:
            found = f"{first_line(error)} (TLS is spoken)", "See that it runs, and that the port is the one for TLS."
        if found is None:
            raise
        yield Finding("broker", Level.FAILED, f"{url}: {found[0]}", found[1])
        return
    if url.tls is not None and (url.tls.verify == "none" or not url.tls.check_hostname):
        text = "TLS is spoken, but another server can pose as the broker: its certificate is not checked"
        yield Finding(
            "broker certificate", Level.NOTE, text, "Take ssl_cert_reqs and ssl_check_hostname out of its URL."
        )


def _broker(url: BrokerUrl) -> Iterator[Finding]:
    if not url.is_redis:
        with Connection(url.for_kombu(), ssl=broker_tls.for_kombu(url), connect_timeout=CONNECT_S) as connection:
            connection.ensure_connection(max_retries=0, timeout=CONNECT_S)
        yield Finding("broker", Level.OK, "reachable")
        yield from consumers(url)
        return
    given, master_text = url, ""
    if url.master is not None:
        master, unreachable = sentinels.master(url)
        yield from unreachable
        if master is None:
            return
        url, master_text = master, f", the master at {master.address}"
    with redis.Redis(**_redis_options(url)) as client:
        client.ping()
        info, hidden = _broker_info(client)
        version = info.get("redis_version", "unknown")
        yield Finding("broker", Level.OK, f"Redis protocol, version {version}{master_text}")
        try:
            config = client.config_get("maxmemory-policy", "appendonly", "save", "timeout")
        except redis.ResponseError:
            config = {"maxmemory-policy": info["maxmemory_policy"]} if "maxmemory_policy" in info else {}
            yield _refused("timeout and persistence", "CONFIG", "See that timeout is 0, or 60 and more.")
        if "maxmemory-policy" in config:
            yield from _broker_settings(config)
        else:
            yield _refused("memory", "CONFIG", "See that maxmemory-policy is noeviction.")
        if hidden:
            yield _refused("room", "INFO", "See that used_memory stays well below maxmemory.")
        yield from _broker_room(info)
    yield from consumers(given)


def _redis_options(url: BrokerUrl) -> Mapping[str, Any]:
    """Return redis-py's options for a connection to the server."""
    place = {"host": url.address.name, "port": url.address.port or 0}
    if url.socket is not None:
        place = {"unix_socket_path": url.socket}
    tls = {} if url.tls is None else {"ssl": True, **url.tls.for_redis()}
    secret = None if url.password is None else url.password.reveal()
    account = {"db": int(url.place or 0), "username": url.user, "password": secret}
    return {**place, **tls, **account, **sentinels.AT_ONCE}


def _broker_info(client: redis.Redis) -> tuple[Mapping[str, Any], bool]:
    """Return the server's INFO about itself and its memory, and whether it refuses the command."""
    try:
        return {**client.info("server"), **client.info("memory")}, False
    except redis.ResponseError:
        return {}, True


def _refused(what: str, command: str, advice: str) -> Finding:
    return Finding(f"broker {what}", Level.NOTE, f"not seen: the server refuses {command}", advice)


def _broker_settings(config: Mapping[str, Any]) -> Iterator[Finding]:
    policy = config["maxmemory-policy"]
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: it may drop messages, and jobs stall until they are published again"
        yield Finding("broker memory", Level.FAILED, text, "Set maxmemory-policy to noeviction.")
    else:
        yield Finding("broker memory", Level.OK, "it evicts nothing")
    if 0 < int(config.get("timeout") or 0) < _MIN_IDLE_TIMEOUT_S:
        text = f"it closes connections that are idle for {config['timeout']} s"
        yield Finding("broker timeout", Level.NOTE, text, f"Set timeout to 0, or to {_MIN_IDLE_TIMEOUT_S} and more.")
    if config.get("appendonly") == "no" and not config.get("save"):
        yield Finding("broker persistence", Level.OK, "none, and none is needed: all in it can be made again")


def _broker_room(memory: Mapping[str, Any]) -> Iterator[Finding]:
    used, limit = int(memory.get("used_memory", 0)), int(memory.get("maxmemory") or 0)
    if not limit:
        return
    text = f"{used:,} of its {limit:,} bytes (maxmemory) are in use"
    advice = "Raise maxmemory, or find the other clients that fill it: Sliceway's messages are a few KiB."
    level = Level.FAILED if used > _FULL * limit else Level.NOTE if used > _NEARLY_FULL * limit else Level.OK
    yield Finding("broker room", level, text, "" if level is Level.OK else advice)


def store_checks(profiles: Sequence[StoreProfile]) -> list[Check]:
    """Return a check for each store."""
    if not profiles:
        none = Finding("stores", Level.NOTE, "there is none", "Name some in the stores file: SLICEWAY_STORES_FILE.")
        return [("stores", lambda: iter([none]))]
    return [(f"store {profile.name}", partial(_store, profile)) for profile in profiles]


def _store(profile: StoreProfile) -> Iterator[Finding]:
    name = f"store {profile.name}"
    if (why := unusable_authorities(profile.ca_file)) is not None:  # an http:// endpoint would not read it
        raise StoreUnusable(f"ca_file {profile.ca_file} {why}", **TLS)
    store = open_store(profile)
    try:
        store.check()
    except Transient as error:  # a job would retry; the doctor reports it
        yield Finding(name, Level.FAILED, error.message, f"See whether {profile.endpoint} is right, and runs.")
        return
    finally:
        store.close()
    yield Finding(name, Level.OK, f"{profile.protocol} at {profile.endpoint}, bucket {profile.bucket}")
    trusted = ssl.create_default_context(cafile=profile.ca_file)
    with httpx.Client(verify=trusted, proxy=for_httpx(profile.proxy), trust_env=False, timeout=CONNECT_S) as client:
        answer = client.head(str(profile.endpoint))
    if date := email.utils.parsedate_tz(answer.headers.get("Date", "")):
        yield clock(name, float(email.utils.mktime_tz(date)))


def roots(profiles: Profiles) -> Iterator[Finding]:
    """Check that each root can be read here."""
    for root in profiles.roots.values():
        if why := usable(root):
            text = f"{root.path} {why}"
            yield Finding(f"root {root.name}", Level.FAILED, text, "Mount it here, or run this where the workers run.")
        else:
            yield Finding(f"root {root.name}", Level.OK, str(root.path))
    if not profiles.roots:
        yield Finding("roots", Level.NOTE, "there is none", "Name some in the stores file: SLICEWAY_STORES_FILE.")


def state_folder(settings: Settings) -> Iterator[Finding]:
    """Check that the folder of `sliceway up`, if a setting names one, can be written and has room."""
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
    if free.f_bavail * free.f_frsize < _MIN_FREE_BYTES:
        yield Finding("state folder", Level.FAILED, f"{folder} is nearly full", "Make room on its disk.")
    else:
        yield Finding("state folder", Level.OK, str(folder))
