"""What the API may ask for: enqueue, cancel and retry, within the tenant's rights and quota.

`admission` has decided, without the database, what can be a job at all; `submit` inserts what the database does not
object to, and finds out what stood in the way of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from worker.errors import Conflict, QuotaExceeded, Refused
from worker.jobs import transitions
from worker.jobs.statements import sql
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.quota import Quota
    from worker.jobs.transitions import NewJob

_ROUNDS = 4
_REQUEST = ("tenant", "source", "store", "key", "target", "idempotency_key", "request_digest")
"""What must be the same where a job is found under the id of a request."""
_QUEUED = JobState.QUEUED.value  # the text itself: an enumeration's member is slow to be written as JSON


class Accepted(NamedTuple):
    """A job that is kept: made by this request, or (`replayed`) by an earlier one under the same idempotency key."""

    id: UUID
    tenant: str
    state: str
    store: str
    key: str
    replayed: bool = False


class EarlierSubmission(NamedTuple):
    """A job that was made under an idempotency key."""

    id: UUID
    tenant: str
    state: str
    store: str
    key: str
    idempotency_key: str
    request_digest: bytes | None
    """Of the request: another digest under the same idempotency key is another request."""


class TargetHolder(NamedTuple):
    """A live job that writes to a target."""

    id: UUID
    tenant: str
    target: str


@dataclass(slots=True)
class Submission:
    """Jobs on their way into the table, all of the key's tenant, and how far they have got.

    This makes `submit` idempotent: a job keeps its id, and what is known of it, when its insert is sent once more.
    """

    jobs: Sequence[NewJob]
    key: ApiKey
    quota: Quota
    blind: frozenset[str] = frozenset()
    """Stores in which a dry run hides other tenants' live jobs; an insert cannot hide them: it would collide."""
    left: list[NewJob] = field(init=False)
    answers: dict[UUID, Accepted | Refused] = field(default_factory=dict)
    """Of those that are no longer left; whatever has none was made."""
    _granted: int = 0
    """For so many of those left the quota has room: they count as live until it is known whether they were made."""
    _made: int = 0
    _answer_lost: bool = False
    """Whether an insert was sent and its answer lost: a job that is there under its own id is then ours."""

    def __post_init__(self) -> None:
        """Leave all of them to be inserted."""
        self.left = list(self.jobs)

    def grant(self, tx: Connection) -> Sequence[NewJob]:
        """Return those of the jobs left that are to be inserted now: as many as the quota has room for."""
        self._granted += self.quota.take(tx, self.key.tenant, len(self.left) - self._granted)
        return self.left[: self._granted]

    def fail(self, *, answer_lost: bool) -> None:
        """Take note that an insert of those granted was not answered, or made none of them."""
        self._answer_lost = answer_lost
        if not answer_lost:
            self.give_up()

    def settle(self, tx: Connection, made: set[UUID]) -> set[UUID]:
        """Take note of what an insert of those granted has made; returns the ids of those that were not granted."""
        asked, over = self.left[: self._granted], self.left[self._granted :]
        lost = [] if len(made) == len(asked) else [job for job in asked if job.id not in made]
        kept = _kept(tx, lost) if lost and self._answer_lost else {}
        self.answers |= kept
        self.left = [*(job for job in lost if job.id not in kept), *over]
        self.quota.give_back(self.key.tenant, len(asked) - len(made) - len(kept))
        self._granted, self._made = 0, self._made + len(made) + len(kept)
        return {job.id for job in over}

    def give_up(self) -> None:
        """Count the jobs as not live: they were not made, or that is undone."""
        self.quota.give_back(self.key.tenant, self._granted + self._made)
        self._granted = self._made = 0


def submit(tx: Connection, submission: Submission) -> list[Accepted | Refused]:
    """Insert the jobs and answer each, in order; where the connection was cut, it may be called again on another.

    A job that collides is answered by what it collided with: its own first submission, another use of its idempotency
    key, or the live job on its target. If that ended in between, the job is tried again.
    """
    jobs, answers = submission.jobs, submission.answers
    for _ in range(_ROUNDS):
        granted = submission.grant(tx)
        try:
            made = transitions.enqueue(tx, granted, submission.key.actor) if granted else set()
        except psycopg.Error:
            submission.fail(answer_lost=tx.closed)
            raise
        over = submission.settle(tx, made)
        if not submission.left:
            break
        answers |= _explain(tx, submission, over)
        submission.left = [job for job in submission.left if job.id not in answers]
    answers |= {job.id: _unsettled(job) for job in submission.left}
    if not answers:  # nearly always; one dictionary access for each job would take as long as all the rest
        return [_made(job) for job in jobs]
    return [answers.get(job.id) or _made(job) for job in jobs]


def _kept(tx: Connection, jobs: Sequence[NewJob]) -> dict[UUID, Accepted]:
    """Return those of the jobs that are in the table already, under their own ids."""
    rows = {row["id"]: row for row in tx.execute(sql("submitted"), {"ids": [job.id for job in jobs]})}
    return {
        job.id: Accepted(job.id, job.tenant, rows[job.id]["state"], job.store, job.key)
        for job in jobs
        if job.id in rows and all(rows[job.id][name] == getattr(job, name) for name in _REQUEST)
    }


def _made(job: NewJob) -> Accepted:
    return Accepted(job.id, job.tenant, _QUEUED, job.store, job.key)


def _explain(tx: Connection, submission: Submission, over: set[UUID]) -> dict[UUID, Accepted | Refused]:
    """Say what stood in the way of jobs that were not inserted; those missing from the answer may be tried again."""
    lost, most = submission.left, submission.quota.most
    first = _first_submissions(tx, lost)
    holders = _holders(tx, [job.target for job in lost])
    answers: dict[UUID, Accepted | Refused] = {}
    for job in lost:
        if job.idempotency_key in first:
            answers[job.id] = _repeated(job, first[job.idempotency_key])
        elif job.id in over:
            answers[job.id] = QuotaExceeded(f"tenant {job.tenant!r} has {most} live jobs, as many as it may have")
        elif job.target in holders:
            theirs = holders[job.target].tenant != job.tenant
            answers[job.id] = (
                _made(job) if theirs and job.store in submission.blind else _busy(job, holders[job.target])
            )
    return answers


def _first_submissions(tx: Connection, lost: Sequence[NewJob]) -> dict[str | None, EarlierSubmission]:
    keys = [job.idempotency_key for job in lost if job.idempotency_key is not None]
    if not keys:
        return {}
    rows = tx.execute(sql("first_submissions"), {"tenant": lost[0].tenant, "keys": keys})
    return {row["idempotency_key"]: EarlierSubmission(**row) for row in rows}


def _holders(tx: Connection, targets: Sequence[str]) -> dict[str, TargetHolder]:
    rows = tx.execute(sql("target_holders"), {"targets": list(targets)})
    return {row["target"]: TargetHolder(**row) for row in rows}


def _repeated(job: NewJob, first: EarlierSubmission) -> Accepted | Refused:
    if first.request_digest != job.request_digest:
        return Conflict(
            f"idempotency key {job.idempotency_key!r} was used for another request, job {first.id}",
            code="idempotency_mismatch",
            advice="Use a new idempotency key for a new request.",
            extra={"job_id": str(first.id)},
        )
    return Accepted(first.id, first.tenant, first.state, first.store, first.key, replayed=True)


def _busy(job: NewJob, holder: TargetHolder) -> Refused:
    mine = holder.tenant == job.tenant
    return Conflict(
        f"a live job already writes to {job.key!r} in store {job.store!r}",
        code="key_busy",
        advice="Wait until it has ended, cancel it, or choose another key."
        if mine
        else "Wait until it has ended, or choose another key.",
        extra={"job_id": str(holder.id)} if mine else None,
    )


def _unsettled(job: NewJob) -> Refused:
    return Conflict(
        f"jobs for {job.key!r} in store {job.store!r} come and go too fast",
        code="key_busy",
        advice="Send the request again.",
    )
