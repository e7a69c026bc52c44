"""Checks a run by its history: the clients' operations, every change of a row, the store's journal, the objects.

Before the workers start, `install` creates triggers in the database. After the run `check` loads the rest into the same
schema (`history`). Each invariant is one statement in `checks/`, which returns its violations. The rows stay in the
database: the checker's memory does not grow with the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import class_row

from tests.faults import loading
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.store_contents import StoreContents

_HERE = Path(__file__).parent
MAX_VIOLATIONS = 100
"""How many violations of one invariant are reported."""

INVARIANTS = tuple(sorted(each.stem for each in (_HERE / "checks").glob("*.sql")))
"""The names of the invariants; the first lines of each statement describe it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A violation of an invariant: the job (None if it concerns no job), and what is wrong."""

    invariant: str
    job: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: job {self.job}: {self.what}" if self.job else f"{self.invariant}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a run; bytes are those of files, as the store received them.

    Attributes:
        jobs: final state -> jobs.
        submits: ``submits_unanswered`` of them had no answer.
        foreign_objects: planted objects and uploads of other clients.
        faults: name -> how often.
        claims: of slices; ``claims_lapsed`` ended without a checkpoint, ``claims_of_the_dead`` by their worker's death.
        checkpoints: ``checkpoints_undone`` of them were undone, because the store did not list the slice.
        attempts: answers that counted as an attempt of a job or slice.
        deaths: counted against steps and slices, of ``workers_dead`` worker processes.
        sends: requests with bytes of a slice; ``sends_lapsed`` ended after the sender's claim, ``sends_unclaimed`` had
            none (lost by a database that was stopped at once), ``false_acks`` were acknowledged without an effect.
        bytes_not_stored: sent, and refused or cut off.
        bytes_sent_twice: sent and received although the store had them; ``bytes_sent_twice_lapsed`` of them by lapsed
            claims; by worker those that an earlier claim of the worker had sent and not checkpointed.
        jobs_without_source: the slices of jobs whose source has changed are compared with each other only.
    """

    jobs: dict[str, int]
    submits: int
    submits_unanswered: int
    foreign_objects: int
    faults: dict[str, int]
    claims: int
    claims_lapsed: int
    claims_of_the_dead: int
    checkpoints: int
    checkpoints_undone: int
    workers_dead: int
    sessions_lost: int
    sessions_left_open: int
    foreign_sessions_discarded: int
    retries: int
    quarantined: int
    attempts: int
    deaths: int
    sends: int
    sends_lapsed: int
    sends_unclaimed: int
    false_acks: int
    bytes_sent: int
    bytes_not_stored: int
    bytes_sent_twice: int
    bytes_sent_twice_lapsed: int
    bytes_sent_twice_by_worker: dict[str, int]
    jobs_without_source: int


@dataclass(frozen=True, slots=True)
class Report:
    """The violations of a run, and its figures."""

    violations: tuple[Violation, ...]
    figures: Figures

    def __str__(self) -> str:
        return "\n".join(str(each) for each in self.violations) or "no invariant is violated"


def install(url: str) -> None:
    """Let a migrated database record its changes from now on; call it before the first job.

    Args:
        url: the database's, as `SLICEWAY_DATABASE_URL` has it.
    """
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.execute((_HERE / "sql" / "audit.sql").read_bytes())


def check(
    url: str,
    *,
    recorded: Iterable[Path],
    journals: Iterable[Path],
    contents: StoreContents,
    secrets: Sequence[str] = (),
) -> Report:
    """Check a run whose workers have stopped. May be called again.

    Args:
        url: of the database that `install` prepared.
        recorded: the files of all recorders.
        journals: the store's journal files (`--journal`), oldest first.
        contents: of the store, after the run.
        secrets: texts that must be in no row.
    """
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        loading.load(connection, recorded=recorded, journals=journals, contents=contents, secrets=secrets)
        loading.derive(connection)
        return Report(tuple(violations(connection)), figures(connection))


def violations(connection: psycopg.Connection[Any], invariants: Iterable[str] = INVARIANTS) -> Iterable[Violation]:
    """Yield the violations of these invariants in the loaded tables."""
    for name in invariants:
        statement = b"SELECT * FROM (%s) AS found LIMIT %d" % (
            (_HERE / "checks" / f"{name}.sql").read_bytes(),
            MAX_VIOLATIONS,
        )
        for job, what in connection.execute(statement).fetchall():
            yield Violation(name, None if job is None else str(job), what)


def figures(connection: psycopg.Connection[Any]) -> Figures:
    """Compute the figures from the loaded tables."""
    with connection.cursor(row_factory=class_row(Figures)) as cursor:
        [counted] = cursor.execute((_HERE / "sql" / "figures.sql").read_bytes()).fetchall()
    return counted
