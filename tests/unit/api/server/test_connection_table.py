"""How many connections there may be, and what is written about those that are refused."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Any

import pytest

from api.server.connection_table import PIPELINED_BURST, ConnectionTable, address_of, connection_limit
from api.server.refusals import LOG_EVERY_S, RefusalLog, is_keyless
from worker.config.settings import load_settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

SETTINGS = load_settings(
    {
        "SLICEWAY_DATABASE_URL": "postgresql+psycopg://sliceway:fake-secret-db@db/sliceway",
        "SLICEWAY_BROKER_URL": "redis://cache:6379/0",
    }
)


@pytest.mark.parametrize(
    ("open_files", "limit"), [(resource.RLIM_INFINITY, 1000), (1_000_000, 1000), (1024, 734), (300, 16), (64, 16)]
)
def test_open_files_bound_the_connections(open_files: int, limit: int) -> None:
    assert connection_limit(SETTINGS, open_files) == limit


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_address(host: str, address: str) -> None:
    assert address_of(host) == address


def test_a_flood_is_a_line_a_minute_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = RefusalLog(clock=lambda: now[0])

    def counts() -> list[tuple[str, int]]:
        keys = [record.__dict__["keys"] for record in caplog.records]
        caplog.clear()
        return [(each["reason"], each["count"]) for each in keys]

    with caplog.at_level(logging.WARNING, logger="api.server.refusals"):
        for _ in range(1000):
            log.count("idle")
        log.count("slow_head")
        log.flush()
        assert counts() == [("idle", 1), ("slow_head", 1)]
        now[0] = LOG_EVERY_S
        log.flush()
        assert counts() == [("idle", 999)]
        log.count("idle")
        assert counts() == []


class _Pipelining:
    """A connection that always has another request."""

    transport: asyncio.Transport
    deadline = 0.0

    def __init__(self, table: ConnectionTable, took: list[object]) -> None:
        self._table, self._took = table, took

    def on_deadline(self) -> None: ...

    def parse_pipelined(self) -> None:
        self._took.append(self)
        self._table.queue_pipelined(self)


class _Loop:
    """An event loop whose turns a test takes."""

    def __init__(self) -> None:
        self._ready: list[Callable[[], object]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self._ready.append(call)

    def turn(self) -> None:
        ready, self._ready = self._ready, []
        for call in ready:
            call()


def test_pipelined_requests_take_turns_and_leave_room_for_others() -> None:
    loop: Any = _Loop()
    table, took = ConnectionTable(SETTINGS, loop), list[object]()
    for _ in range(3 * PIPELINED_BURST):
        table.queue_pipelined(_Pipelining(table, took))
    for turn in range(1, 7):
        loop.turn()
        assert len(took) == turn * PIPELINED_BURST
    assert {took.count(each) for each in took} == {2}


@pytest.mark.parametrize(
    ("url", "fields", "keyless"),
    [
        (b"/v1/jobs", [(b"content-length", b"9")], True),
        (b"/v1/jobs?x=1", [(b"host", b"api"), (b"transfer-encoding", b"chunked")], True),
        (b"/v1/jobs", [(b"content-length", b"0")], False),
        (b"/v1/jobs", [(b"host", b"api")], False),
        (b"/v1/jobs", [(b"content-length", b"9"), (b"authorization", b"")], False),
        (b"/healthz", [(b"content-length", b"9")], False),
    ],
)
def test_what_has_a_body_and_no_key_is_seen_in_its_head(
    url: bytes, fields: list[tuple[bytes, bytes]], keyless: bool
) -> None:
    assert is_keyless(url, fields) is keyless
