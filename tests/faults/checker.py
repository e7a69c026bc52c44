"""Judges a run by its history: what clients asked and were told, every change, the store's journal, the objects.

Before the workers start, `install` puts triggers into the database. Afterwards `check` loads the rest beside what they
have written (schema `history`), and each invariant is one statement in `checks/`, which returns what contradicts it.
Rows stay in the database: nothing here grows with the run.
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

    from tests.faults.stored import Stored

_HERE = Path(__file__).parent
MOST = 100
"""So many violations of one invariant are told; more would say no more."""

INVARIANTS = tuple(sorted(each.stem for each in (_HERE / "checks").glob("*.sql")))
"""The names of what must hold; what each means stands in the first lines of its statement."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be: which invariant it breaks, the job (None where there is none), and what it is."""

    invariant: str
    job: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: job {self.job}: {self.what}" if self.job else f"{self.invariant}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run was; bytes are those of files, as the store received them.

    Attributes:
        jobs: final state -> jobs.
        submits: questions for a job; ``submits_unanswered`` of them never heard whether there is one.
        strangers: objects and uploads of others that were planted.
        faults: what was done to the system -> how often.
        claims: of slices; ``claims_lapsed`` ended without a checkpoint, ``claims_of_the_dead`` by their worker's death.
        checkpoints: written; ``checkpoints_undone`` were taken back, because the store did not list the slice.
        attempts: answers that were a job's or slice's own fault.
        deaths: counted against steps and slices, of ``workers_dead`` worker processes.
        sends: requests with bytes of a slice; ``sends_lapsed`` were decided when the sender's claim had ended,
            ``sends_unclaimed`` had none (forgotten by a database that was stopped hard), ``lies`` were acknowledged and
            not done.
        bytes_not_stored: sent and refused or cut off.
        bytes_sent_twice: sent and received although the store had them; of these ``bytes_sent_twice_lapsed`` by lapsed
            claims, and by worker those that the worker's own claim had sent before and not checkpointed.
        jobs_without_source: whose source can no longer be read: their slices were compared with each other only.
    """

    jobs: dict[str, int]
    submits: int
    submits_unanswered: int
    strangers: int
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
    lies: int
    bytes_sent: int
    bytes_not_stored: int
    bytes_sent_twice: int
    bytes_sent_twice_lapsed: int
    bytes_sent_twice_by_worker: dict[str, int]
    jobs_without_source: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has shown: nothing wrong, or what; and its figures."""

    violations: tuple[Violation, ...]
    figures: Figures

    def __str__(self) -> str:
        return "\n".join(str(each) for each in self.violations) or "nothing contradicts the invariants"


def install(url: str) -> None:
    """Let a migrated database write down its changes from now on; call it before anybody works on it.

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
    stored: Stored,
    secrets: Sequence[str] = (),
) -> Report:
    """Judge a run that is over: nobody works on its jobs any more. May be called again.

    Args:
        url: of the database that `install` prepared.
        recorded: the files of all recorders.
        journals: the store's journal files (`--journal`), oldest first.
        stored: what is at the store now.
        secrets: words that must be in no row.
    """
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        loading.load(connection, recorded=recorded, journals=journals, stored=stored, secrets=secrets)
        loading.derive(connection)
        return Report(tuple(violations(connection)), figures(connection))


def violations(connection: psycopg.Connection[Any], invariants: Iterable[str] = INVARIANTS) -> Iterable[Violation]:
    """Ask what is loaded for contradictions to these invariants."""
    for name in invariants:
        statement = b"SELECT * FROM (%s) AS found LIMIT %d" % ((_HERE / "checks" / f"{name}.sql").read_bytes(), MOST)
        for job, what in connection.execute(statement).fetchall():
            yield Violation(name, None if job is None else str(job), what)


def figures(connection: psycopg.Connection[Any]) -> Figures:
    """Count what is loaded."""
    with connection.cursor(row_factory=class_row(Figures)) as cursor:
        [counted] = cursor.execute((_HERE / "sql" / "figures.sql").read_bytes()).fetchall()
    return counted
