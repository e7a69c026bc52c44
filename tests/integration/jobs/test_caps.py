"""Caps that operators set: rows that the snapshot shows, and what a change leaves in the audit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.jobs.database import everything
from tests.integration.jobs.test_holds import ACTING
from worker.db.pool import conninfo
from worker.jobs import caps, due
from worker.jobs.cap_rows import CapKind
from worker.jobs.room import NO_CAPS, OperatorCaps
from worker.jobs.transitions import WAKE_CHANNEL

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase

BOTH = pytest.mark.parametrize("kind", list(CapKind))


def set_cap(db: JobsDatabase, kind: CapKind, most: int | None, name: str = "main") -> bool:
    with db.transaction() as tx:
        return caps.set_cap(tx, kind, name, most, ACTING)


def seen(db: JobsDatabase) -> OperatorCaps:
    with db.connection() as tx:
        return due.snapshot(tx, whole_bytes=0).caps


@BOTH
def test_a_cap_is_a_row_that_the_snapshot_shows(db: JobsDatabase, kind: CapKind) -> None:
    assert seen(db) == NO_CAPS
    assert set_cap(db, kind, 3)
    assert seen(db) == (OperatorCaps({"main": 3}) if kind is CapKind.STORE else OperatorCaps({}, {"main": 3}))
    with db.connection() as tx:
        [found] = caps.list_caps(tx)
    assert (found.kind, found.name, found.max_in_flight, found.reason, found.key_name, found.person) == (
        kind, "main", 3, "the network is serviced", "ops", "ann",
    )  # fmt: skip
    assert set_cap(db, kind, None)
    assert seen(db) == NO_CAPS


@BOTH
def test_repeating_it_changes_nothing_but_the_audit(db: JobsDatabase, kind: CapKind) -> None:
    assert set_cap(db, kind, 3)
    with db.connection() as tx:
        before = everything(tx), caps.list_caps(tx)
    assert not set_cap(db, kind, 3)
    with db.connection() as tx:
        assert (everything(tx), caps.list_caps(tx)) == before
    assert set_cap(db, kind, 4)
    assert set_cap(db, kind, None)
    assert not set_cap(db, kind, None)
    rows = db.run("SELECT action, what, changed FROM audit ORDER BY id")
    assert [(row["action"], row["what"][kind], row["what"]["max_in_flight"], row["changed"]) for row in rows] == [
        (f"{kind}.limit", "main", most, changed) for most, changed in ((3, 1), (3, 0), (4, 1), (None, 1), (None, 0))
    ]


def test_what_is_set_at_once_is_set_once(db: JobsDatabase) -> None:
    with ThreadPoolExecutor(8) as pool:
        changed = list(pool.map(lambda _: set_cap(db, CapKind.STORE, 5), range(8)))
    assert sorted(changed) == [False] * 7 + [True]


def test_a_change_wakes_the_dispatcher_and_a_repetition_does_not(db: JobsDatabase) -> None:
    with psycopg.connect(conninfo(db.url), autocommit=True) as listener:
        listener.execute(f"LISTEN {WAKE_CHANNEL}")
        heard: list[psycopg.Notify] = []
        listener.add_notify_handler(heard.append)
        for most in (3, 3, 4, None, None):
            set_cap(db, CapKind.TENANT, most)
            listener.execute("SELECT 1")
        assert len(heard) == 3


@pytest.mark.parametrize("most", [0, -1])
def test_a_cap_that_lets_nothing_go_is_no_row(db: JobsDatabase, most: int) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        set_cap(db, CapKind.STORE, most)
