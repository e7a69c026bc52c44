"""The checker finds no violation in a correct run, and every contradiction that the test plants in its history."""

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
class Contradiction:
    """The invariant that it violates, a part of the violation's text, and the statements that plant it."""

    invariant: str
    text: str
    statements: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


def _contradictions() -> list[Contradiction]:
    text = (Path(__file__).parent / "sql" / "contradictions.sql").read_text()
    parts = re.split(rf"^-- ({'|'.join(INVARIANTS)}): (.*)$", text, flags=re.MULTILINE)[1:]
    return [Contradiction(*parts[first : first + 3]) for first in range(0, len(parts), 3)]


CONTRADICTIONS = _contradictions()


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


def test_a_correct_run_has_no_violation(run: Run) -> None:
    report = run.report()
    assert report.violations == (), str(report)
    assert run.report() == report  # a second check gives the same


def test_figures_describe_the_run(run: Run) -> None:
    figures = run.report().figures
    assert figures.jobs == {"succeeded": 9, "failed": 1, "cancelled": 1}
    assert (figures.submits, figures.submits_unanswered, figures.foreign_objects, figures.retries) == (12, 1, 4, 1)
    assert (figures.sessions_lost, figures.workers_dead, figures.quarantined) == (1, 1, 0)
    assert figures.bytes_sent_twice == figures.bytes_sent_twice_lapsed == SLICE_BYTES
    assert list(figures.bytes_sent_twice_by_worker.values()) == [SLICE_BYTES]


def test_one_byte_of_an_object_and_one_line_of_the_journal_are_missed(run: Run) -> None:
    """The checker loads the object's own bytes, and each line of the journal."""
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


def test_every_invariant_has_a_contradiction() -> None:
    assert {each.invariant for each in CONTRADICTIONS} == set(INVARIANTS)


def test_every_planted_contradiction_is_found(run: Run) -> None:
    run.report()
    with psycopg.connect(conninfo(run.site.database.url)) as loaded:
        loaded.execute("SET session_replication_role = replica")  # the triggers must not record planted rows
        loaded.execute(_HELPERS.encode())
        missed = [str(each) for each in CONTRADICTIONS if not _found(loaded, each)]
    assert missed == []


def _found(loaded: psycopg.Connection[Any], planted: Contradiction) -> bool:
    """Whether the checker reports a contradiction, and does not report it without it."""
    with loaded.transaction(force_rollback=True):
        before = _violations(loaded, planted.invariant)
        loaded.execute(_CALL.sub(r"pg_temp.\1(", planted.statements).encode())
        derive(loaded)
        return planted.text not in before and planted.text in _violations(loaded, planted.invariant)


def _violations(loaded: psycopg.Connection[Any], invariant: str) -> str:
    return "; ".join(each.what for each in violations(loaded, [invariant]))
