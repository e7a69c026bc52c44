"""The checker finds nothing in a run that was well, and every contradiction that is planted in its history."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.faults.checker import INVARIANTS, violations
from tests.faults.loading import derive
from tests.faults.sample import Run
from tests.support.installation import Installation
from tests.support.store import SLICE_BYTES
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey


_HELPERS = """
CREATE FUNCTION pg_temp.job(key text) RETURNS uuid LANGUAGE sql AS
  'SELECT id FROM job WHERE job.key = $1 ORDER BY id LIMIT 1';
CREATE FUNCTION pg_temp.session(key text) RETURNS text LANGUAGE sql AS
  'SELECT session FROM history.session WHERE job_id = pg_temp.job($1)';
CREATE FUNCTION pg_temp.later() RETURNS float8 LANGUAGE sql AS 'SELECT extract(epoch FROM now())::float8 + 60';
"""
_CALL = re.compile(r"\b(job|session|later)\(")


@dataclass(frozen=True, slots=True)
class Plant:
    """A contradiction: the invariant that it breaks, words of the violation, and the statements that plant it."""

    invariant: str
    words: str
    statements: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.words}"


def _plants() -> list[Plant]:
    text = (Path(__file__).parent / "sql" / "plants.sql").read_text()
    parts = re.split(rf"^-- ({'|'.join(INVARIANTS)}): (.*)$", text, flags=re.MULTILINE)[1:]
    return [Plant(*parts[first : first + 3]) for first in range(0, len(parts), 3)]


PLANTS = _plants()


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str
) -> Iterator[Run]:
    site = Installation(tmp_path_factory.mktemp("site"), postgres, valkey, template_database)
    try:
        run = Run(site)
        run.play()
        yield run
    finally:
        site.calm()
        site.close()


def test_a_run_that_was_well_is_judged_so(run: Run) -> None:
    report = run.report()
    assert report.violations == (), str(report)
    assert run.report() == report  # and may be judged again


def test_figures_tell_what_the_run_was(run: Run) -> None:
    figures = run.report().figures
    assert figures.jobs == {"succeeded": 9, "failed": 1, "cancelled": 1}
    assert (figures.submits, figures.submits_unanswered, figures.strangers, figures.retries) == (12, 1, 4, 1)
    assert (figures.sessions_lost, figures.workers_dead, figures.quarantined) == (1, 1, 0)
    assert figures.bytes_sent_twice == figures.bytes_sent_twice_lapsed == SLICE_BYTES
    assert list(figures.bytes_sent_twice_by_worker.values()) == [SLICE_BYTES]


def test_one_byte_of_an_object_and_one_line_of_the_journal_are_missed(run: Run) -> None:
    """What is loaded is what is there: the object's own bytes, and each line of the file."""
    folder, journal = run.site.folder / "data", run.site.store.journal
    with closing(sqlite3.connect(folder / "records.sqlite3")) as records:
        [(content,)] = records.execute("SELECT content FROM objects WHERE path = 'plain'").fetchall()
    file, lines = folder / "content" / content, journal.read_bytes()
    [first] = [each for each in lines.splitlines() if b'"path":"again"' in each and b'"offset":0' in each]
    try:
        whole = bytearray(file.read_bytes())
        whole[-1] ^= 1
        file.write_bytes(whole)
        journal.write_bytes(lines.replace(first + b"\n", b"") + b'{"what":"requ')
        assert {each.invariant for each in run.report().violations} == {"objects", "checkpoints"}
    finally:
        journal.write_bytes(lines)
        file.write_bytes((run.site.media / "plain").read_bytes())


def test_every_invariant_is_tried() -> None:
    assert {plant.invariant for plant in PLANTS} == set(INVARIANTS)


def test_whatever_is_planted_is_found(run: Run) -> None:
    run.report()
    with psycopg.connect(conninfo(run.site.database.url)) as loaded:
        loaded.execute("SET session_replication_role = replica")  # a planted row is no change to be noted
        loaded.execute(_HELPERS.encode())
        missed = [str(plant) for plant in PLANTS if not _found(loaded, plant)]
    assert missed == []


def _found(loaded: psycopg.Connection[Any], plant: Plant) -> bool:
    """Whether the checker tells of a contradiction, and of none like it without it."""
    with loaded.transaction(force_rollback=True):
        before = _told(loaded, plant.invariant)
        loaded.execute(_CALL.sub(r"pg_temp.\1(", plant.statements).encode())
        derive(loaded)
        return plant.words not in before and plant.words in _told(loaded, plant.invariant)


def _told(loaded: psycopg.Connection[Any], invariant: str) -> str:
    return "; ".join(each.what for each in violations(loaded, [invariant]))
