"""The database under the tests of `worker.jobs`: it puts jobs into any state and reads the rows without that code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from worker.ids import new_id
from worker.jobs import control, store_links, transitions, workers
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.links import Link
from worker.jobs.plan import Plan
from worker.jobs.rows import Checkpointed, Dispatched, OpenedSession
from worker.jobs.states import FINAL, JobState, SliceState, Step
from worker.jobs.transitions import NewJob

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from worker.db.pool import Connection, Database
    from worker.jobs.documents import SessionHandle

Row = dict[str, Any]
SLICE_BYTES = 10
LEASE = timedelta(minutes=1)
SESSION = {"handle": "s-1"}
ERROR = {"code": "store_refused", "message": "no", "advice": "look", "at": "2026-01-01T00:00:00+00:00"}
UNAVAILABLE = ERROR | {"code": "store_unavailable"}
SOON = Deferral(timedelta(minutes=5), UNAVAILABLE, attempt=True)
AT_ONCE = Deferral(None, None)
AT_ONCE_LEASES = transitions.LongestLeases(0.0, 0.0, 0.0, 1_000_000_000)
"""With these no request outlasts its claim, so that an abandoned job ends with its last claim."""


def opened_session(
    size_bytes: int, held: Iterable[int] = (), *, handle: SessionHandle | None = None, ordered: bool = False
) -> OpenedSession:
    """A session of a file of that size with slices of `SLICE_BYTES`, of which the store holds some already."""
    plan, numbers = Plan(size_bytes, SLICE_BYTES), list(held)
    return OpenedSession(
        handle=SESSION if handle is None else handle,
        fingerprint={"size": 1},
        size_bytes=size_bytes,
        slice_bytes=SLICE_BYTES,
        ordered=ordered,
        total=plan.total,
        held=numbers,
        bytes_done=plan.bytes_of(numbers),
    )


@dataclass
class JobsDatabase:
    """One database with one live worker, and the operations that a test performs on jobs."""

    pool: Database
    url: str
    worker: UUID = field(default_factory=uuid4)
    last_ms: int = 0

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a connection on which every statement commits by itself."""
        return self.pool.connection()

    def transaction(self) -> AbstractContextManager[Connection]:
        """Lend a connection inside a transaction, which is committed at the end."""
        return self.pool.transaction()

    def clear(self) -> None:
        """Delete all rows."""
        self.run(
            "WITH a AS (DELETE FROM job), b AS (DELETE FROM worker), c AS (DELETE FROM breaker), "
            "e AS (DELETE FROM hold), f AS (DELETE FROM audit), g AS (DELETE FROM cap), "
            "d AS (DELETE FROM store_link) DELETE FROM leadership"
        )

    def know_link(self, store: str = "main", *, goodput: float = 1e12, answer_s: float = 0.01) -> None:
        """Record the measured rate of a store's link; an unknown link gets one slice at a time."""
        with self.connection() as tx:
            store_links.keep_links(tx, {store: Link(goodput, 1e6, answer_s)})

    def start_worker(self, *, slots: int = 4) -> UUID:
        """Register another worker."""
        made = uuid4()
        with self.connection() as tx:
            workers.start_worker(tx, made, "w", slots=slots, roots=[])
        return made

    def next_id(self) -> UUID:
        """Return an id that sorts after all before it: those of one millisecond have no order."""
        made = new_id()
        while made.int >> 80 <= self.last_ms:
            made = new_id()
        self.last_ms = made.int >> 80
        return made

    def new(self, **fields: Any) -> NewJob:
        """Return a job to enqueue; each has a target of its own unless it is named."""
        job_id = fields.pop("id", None) or new_id()
        key = fields.pop("key", f"k/{job_id}")
        values: Row = {
            "id": job_id, "tenant": "t", "priority": 5, "source": {"kind": "file", "root": "r", "path": "p"},
            "store": "main", "key": key, "target": f"cos-json://h/a/b/{key}", "overwrite": False, "attributes": None,
            "labels": {}, "verify": "auto", "slice_size": None, "retry_for_s": 3600, "idempotency_key": None,
            "request_digest": None,
        }  # fmt: skip
        return NewJob(**values | fields)

    def enqueue(self, **fields: Any) -> UUID:
        """Enqueue one job."""
        job = self.new(id=self.next_id(), **fields)
        with self.connection() as tx:
            assert transitions.enqueue(tx, [job], "tester") == {job.id}
        return job.id

    def run(self, statement: str, *params: Any) -> list[Row]:
        """Run a statement of the test's own."""
        with self.connection() as tx:
            cursor = tx.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def row(self, job: UUID) -> Row:
        """Return the job's row."""
        return self.run("SELECT * FROM job WHERE id = %s", job)[0]

    def columns(self, job: UUID, *names: str) -> tuple[Any, ...]:
        """Return these columns of the job's row."""
        row = self.row(job)
        return tuple(row[name] for name in names)

    def slices(self, job: UUID) -> list[Row]:
        """Return its slices, by number."""
        return self.run("SELECT * FROM slice WHERE job_id = %s ORDER BY number", job)

    def states(self, job: UUID) -> list[str]:
        """Return the states of its slices, by number."""
        return [row["state"] for row in self.slices(job)]

    def events(self, job: UUID) -> list[Row]:
        """Return its history, oldest first."""
        return self.run("SELECT * FROM event WHERE job_id = %s ORDER BY id", job)

    def kinds(self, job: UUID) -> list[str]:
        """Return the kinds of its events, oldest first."""
        return [row["kind"] for row in self.events(job)]

    def force(self, job: UUID, state: JobState, step: Step, *, slices: Sequence[SliceState] = ()) -> None:
        """Write a job's state and step directly, without a transition; the row is consistent."""
        self.force_all([(job, state, step)], slices)

    def force_all(self, jobs: Sequence[tuple[UUID, JobState, Step]], slices: Sequence[SliceState]) -> None:
        """Write the states and steps of jobs directly, each with a slice of number `n` in the state `slices[n]`."""
        states = [str(state) for state in slices]
        left = len(states) - states.count("done")
        self.run(
            """UPDATE job SET state = a.state, step = a.step, token = 7, session = '{"handle": "s-1"}',
                 worker = CASE WHEN a.step = 'running' THEN %s::uuid END,
                 lease_until = CASE WHEN a.step = 'running' THEN now() + interval '1 hour' END,
                 started_at = now(), dispatched_at = now(),
                 finished_at = CASE WHEN a.state = ANY(%s) THEN now() END, size_bytes = %s, slice_bytes = %s,
                 slices_total = %s, slices_left = %s, bytes_done = %s
               FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS a(id, state, step) WHERE job.id = a.id""",
            *(
                self.worker,
                [str(state) for state in FINAL],
                max(1, len(states)) * SLICE_BYTES,
                SLICE_BYTES,
                len(states),
                left,
            ),
            (len(states) - left) * SLICE_BYTES,
            *([job for job, _, _ in jobs], [str(state) for _, state, _ in jobs], [str(step) for _, _, step in jobs]),
        )
        self.run(
            """INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, worker, claimed_at,
                 lease_until, dispatched_at)
               SELECT j, n - 1, (n - 1) * %s, %s, s, 5, CASE WHEN s IN ('sending', 'done') THEN %s::uuid END,
                 CASE WHEN s IN ('sending', 'done') THEN now() END,
                 CASE WHEN s = 'sending' THEN now() + interval '1 hour' END, now()
               FROM unnest(%s::uuid[]) AS j, unnest(%s::text[]) WITH ORDINALITY AS s(s, n)""",
            *(SLICE_BYTES, SLICE_BYTES, self.worker, [job for job, _, _ in jobs], states),
        )

    def claim_of(self, job: UUID, number: int | None = None, worker: UUID | None = None) -> Claim:
        """Return the claim that the rows grant now."""
        row = self.row(job)
        held = row if number is None else self.slices(job)[number]
        return Claim(job, number, held["token"], row["epoch"], worker or self.worker)

    def dispatch(self, job: UUID, *numbers: int) -> list[Dispatched]:
        """Mark the job's step, or these slices, as the dispatcher does."""
        with self.connection() as tx:
            return transitions.dispatch(tx, [] if numbers else [job], [(job, number) for number in numbers])

    def take(self, job: UUID, *numbers: int, worker: UUID | None = None) -> list[Claim]:
        """Dispatch and claim the job's step, or these slices."""
        self.dispatch(job, *numbers)
        claims = [self.claim_of(job, number, worker) for number in numbers or (None,)]
        with self.connection() as tx:
            for claim in claims:
                if claim.number is None:
                    transitions.claim_step(tx, claim, JobState(self.row(job)["state"]), LEASE)
                else:
                    transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
        return claims

    def uploading(self, slices: int = 3, *, held: Sequence[int] = (), ordered: bool = False, **fields: Any) -> UUID:
        """Enqueue a job and bring it through its init."""
        job = self.enqueue(**fields)
        (claim,) = self.take(job)
        self.open(claim, slices, held=held, ordered=ordered)
        return job

    def open(
        self,
        claim: Claim,
        slices: int,
        *,
        held: Sequence[int] = (),
        held_by: str | None = "digest",
        ordered: bool = False,
    ) -> JobState:
        """Store a session and a plan of so many slices, the last one smaller; ``held_by`` None: as release 0.1 did."""
        opened = opened_session(slices * SLICE_BYTES - 3, held, ordered=ordered)
        with self.connection() as tx:
            state = transitions.open_session(tx, claim, opened)
        if held_by is None:
            self.run("UPDATE event SET cause = cause - 'held_by' WHERE job_id = %s", claim.job_id)
        return state

    def checkpoint(self, *claims: Claim) -> dict[Any, Checkpointed]:
        """Record slices as done."""
        with self.connection() as tx:
            return transitions.checkpoint(tx, [Acknowledged(c, "tag", None) for c in claims], claims[0].worker)

    def fail_and_retry(self, claim: Claim) -> Claim:
        """Fail the job of a claim, retry the job, and return the claim of its new init."""
        with self.connection() as tx:
            transitions.fail(tx, claim, ERROR)
            retry_job(tx, claim.job_id)
        (init,) = self.take(claim.job_id)
        return init

    def finishing(self, slices: int = 1, **fields: Any) -> UUID:
        """Enqueue a job and upload all its slices, so that its finish is due."""
        job = self.uploading(slices, **fields)
        self.checkpoint(*self.take(job, *range(slices)))
        assert self.row(job)["state"] == JobState.FINISHING
        return job

    def end_worker(self, worker: UUID, *, how: str = "dead") -> None:
        """End a worker, dead or stopped."""
        self.run('UPDATE worker SET ended_at = now(), "end" = %s WHERE id = %s', how, worker)


def cancel_job(tx: Connection, job: UUID, actor: str = "o") -> JobState:
    """Cancel one job; a refusal is raised."""
    (result,) = control.cancel(tx, [job], actor)
    return result.state_or_raise()


def abandon_job(tx: Connection, job: UUID, actor: str = "o") -> JobState:
    """Abandon one job; a refusal is raised."""
    (result,) = control.cancel(tx, [job], actor, abandon=True)
    return result.state_or_raise()


def retry_job(tx: Connection, job: UUID, actor: str = "o", *, force: bool = False, scratch: bool = False) -> JobState:
    """Retry one job; a refusal is raised."""
    (result,) = control.retry(tx, [job], actor, force=force, scratch=scratch)
    return result.state_or_raise()


def everything(tx: Connection, job: UUID | None = None) -> dict[str, list[Row]]:
    """Return all rows that transitions may write (of one job, or of all), with the row versions."""
    row = tx.execute(
        """SELECT
          (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('xmin', t.xmin::text) ORDER BY id), '[]')
           FROM job t WHERE %(job)s::uuid IS NULL OR id = %(job)s) AS job,
          (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('xmin', t.xmin::text) ORDER BY job_id, number),
             '[]') FROM slice t WHERE %(job)s::uuid IS NULL OR job_id = %(job)s) AS slice,
          (SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY id), '[]')
           FROM event t WHERE %(job)s::uuid IS NULL OR job_id = %(job)s) AS event""",
        {"job": job},
    ).fetchone()
    assert row is not None
    return row


def wait_until_blocked(db: JobsDatabase) -> None:
    """Return as soon as some statement waits for another's lock."""
    until = time.monotonic() + 120
    while not db.run("SELECT pid FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"):
        assert time.monotonic() < until, "no statement waits for the lock"
