"""How many connections there may be, and what is written about those that are refused."""

from __future__ import annotations

import logging
import resource

import pytest

from api.connections import address_of, connection_limit
from api.limits import LOG_EVERY_S, RefusalLog
from worker.settings import load_settings

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

    with caplog.at_level(logging.WARNING, logger="api.limits"):
        for _ in range(1000):
            log.note("idle")
        log.note("slow_head")
        log.flush()
        assert counts() == [("idle", 1), ("slow_head", 1)]
        now[0] = LOG_EVERY_S
        log.flush()
        assert counts() == [("idle", 999)]
        log.note("idle")
        assert counts() == []
