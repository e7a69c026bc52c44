"""Every write of a state but those of operators (`control.py`): a guarded statement each, its event in the transaction.

The guard of a claim's move names epoch, token and worker in its WHERE; where no row answers, `StaleClaim` is raised and
nothing was changed. Each statement stands in `sql/`, to be read and explained; `states.MOVES` is the table they obey.
Locks are taken job rows first, by id, then their slices by number; slices without their job only with SKIP LOCKED.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.types.json import Jsonb
from pydantic_core import to_json

from worker.db.notify import URGENT, WAKE_CHANNEL
from worker.errors import StaleClaim
from worker.jobs.leases import Acknowledged, Claim, Deferral, json_or_null
from worker.jobs.rows import (
    Checkpointed,
    ClaimedJob,
    ClaimedSlice,
    Dispatched,
    FreedClaim,
    InitProgress,
    OpenedSession,
    Reconciled,
)
from worker.jobs.statements import sql
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.documents import ResultDocument
    from worker.jobs.retry import ErrorDocument
    from worker.jobs.rows import Params

_AS_JSON = partial(to_json, bytes_mode="hex")
MANY_SLICES = 500
"""A job of so many slices changes what the planner should know of their table."""


class NewJob(NamedTuple):
    """A validated request to upload one file; see the columns of `models.Job`.

    It goes to the database as a JSON array, which is read in half the time of an object: the order is the statement's.
    """

    id: UUID
    tenant: str
    priority: int
    source: Mapping[str, Any]
    store: str
    key: str
    target: str
    overwrite: bool
    attributes: str | None
    labels: Mapping[str, str]
    verify: str
    slice_size: int | None
    retry_for_s: int
    idempotency_key: str | None
    request_digest: bytes | None
    traceparent: str | None = None


class LongestLeases(NamedTuple):
    """The longest leases that claims can have: seconds of steps, and what a slice's is made of."""

    init_s: float
    finish_s: float
    slice_slack_s: float
    low_speed_bytes_per_s: int


def _one(tx: Connection, statement: str, params: Params) -> Mapping[str, Any]:
    """Run a guarded statement.

    Raises:
        StaleClaim: its guard found nothing.
    """
    row = tx.execute(sql(statement), params).fetchone()
    if row is None:
        number = params.get("number")
        what = f"job {params['job']}" + ("" if number is None else f" slice {number}")
        raise StaleClaim(f"{what}: the claim with token {params.get('token')} is no longer held ({statement})")
    return row


def enqueue(tx: Connection, jobs: Sequence[NewJob], actor: str) -> set[UUID]:
    """Insert the jobs that collide with nothing, and wake the dispatcher at the commit.

    Returns:
        The ids inserted. A missing one collided with its tenant's idempotency key, with a live job on its target, or
        with itself: it is there already.
    """
    row = tx.execute(sql("enqueue"), {"jobs": Jsonb(jobs, dumps=_AS_JSON), "actor": actor}).fetchone()
    assert row is not None
    return {job.id for job in jobs}.difference(row["lost"])


def wake(tx: Connection, *, urgent: bool = False) -> None:
    """Tell the dispatcher that there may be work; heard when the transaction commits."""
    tx.execute("SELECT pg_notify(%s, %s)", [WAKE_CHANNEL, URGENT if urgent else ""])


def claim_step(
    tx: Connection,
    claim: Claim,
    source: JobState,
    lease: timedelta,
    *,
    leases: Mapping[str, float] | None = None,
    reclaim: bool = False,
) -> ClaimedJob:
    """Take the job's step for which a message came; ``source`` is the state that the step starts from.

    ``leases``: seconds by store, for the stores that need another lease than ``lease``.
    ``reclaim``: the answer to the same claim was lost; a claim that was granted still holds.

    Raises:
        StaleClaim: the message is stale or a duplicate, or the job is paused or was cancelled.
    """
    params = {
        **claim.params(),
        "source": source,
        "lease_s": lease.total_seconds(),
        "leases": json.dumps(leases or {}),
        "reclaim": reclaim,
    }
    return ClaimedJob.from_row(_one(tx, "claim_step", params))


def claim_slice(
    tx: Connection, claim: Claim, *, low_speed: int, slack: timedelta, reclaim: bool = False
) -> ClaimedSlice:
    """Take the slice for which a message came; its lease is ``slack`` plus the time it takes at ``low_speed`` bytes/s.

    ``reclaim``: the answer to the same claim was lost; a claim that was granted still holds.

    Raises:
        StaleClaim: the message is stale or a duplicate, or the job is not uploading any more.
    """
    params = {
        "job": claim.job_id,
        "number": claim.number,
        "token": claim.token,
        "epoch": claim.epoch,
        "worker": claim.worker,
        "low_speed": low_speed,
        "slack_s": slack.total_seconds(),
        "reclaim": reclaim,
    }
    return ClaimedSlice.from_row(_one(tx, "claim_slice", params))


def checkpoint(
    tx: Connection, batch: Sequence[Acknowledged], worker: UUID
) -> dict[tuple[UUID, int, int], Checkpointed]:
    """Record slices of one process as done, in one statement; may be repeated.

    Returns:
        For each slice that is done under its own claim, (job, number, token) -> its job afterwards. A stale claim is
        missing.
    """
    slices = [
        {
            "job_id": done.claim.job_id,
            "number": done.claim.number,
            "token": done.claim.token,
            "epoch": done.claim.epoch,
            "tag": done.tag,
            "digest": done.digest,
        }
        for done in batch
    ]  # as one text: arrays cost the client half as much again as the statement itself
    params = {"slices": to_json(slices).decode(), "worker": worker}
    return {
        (row["job_id"], row["number"], row["token"]): Checkpointed(row["state"], row["slices_left"])
        for row in tx.execute(sql("checkpoint"), params)
    }


def release(
    tx: Connection, claim: Claim, deferral: Deferral, *, sent_bytes: int = 0, size_bytes: int | None = None
) -> None:
    """Give a step or slice back, to be dispatched again; so many bytes of its content were acknowledged.

    ``size_bytes``: of that content, if any was to be sent; of a step it is the whole file.

    Raises:
        StaleClaim: it was no longer held.
    """
    statement = "release_step" if claim.number is None else "release_slice"
    _one(tx, statement, {**claim.params(), **deferral.params(), "sent_bytes": sent_bytes, "size_bytes": size_bytes})


def save_progress(tx: Connection, claim: Claim, progress: InitProgress, lease: timedelta) -> JobState:
    """Store what init has learned and extend its lease.

    Returns:
        The job's state; `cancelling` if it was cancelled meanwhile.

    Raises:
        StaleClaim: the step is no longer held.
    """
    params = {
        **claim.params(),
        "fingerprint": json_or_null(progress.fingerprint),
        "size_bytes": progress.size_bytes,
        "hashing": json_or_null(progress.hashing),
        "digests": json_or_null(progress.digests),
        "existed": progress.existed,
        "lease_s": lease.total_seconds(),
    }
    return JobState(_one(tx, "save_progress", params)["state"])


def open_session(tx: Connection, claim: Claim, opened: OpenedSession) -> JobState:
    """Store the session and the plan with one row a slice.

    Returns:
        The job's new state; `cancelling` if it was cancelled meanwhile.
    """
    cause = {"slice_bytes": opened.slice_bytes, "slices": opened.total, "held": len(opened.held)}
    # 0.1 held slices by their size, and did not say so
    held_by = {"held_by": "digest"} if opened.held else {}
    params = {
        **claim.params(),
        "fingerprint": json_or_null(opened.fingerprint),
        "size_bytes": opened.size_bytes,
        "slice_bytes": opened.slice_bytes,
        "ordered": opened.ordered,
        "total": opened.total,
        "held": opened.held,
        "bytes_done": opened.bytes_done,
        "session": Jsonb(opened.handle),
        "left": opened.total - len(opened.held),
        "cause": Jsonb(cause | held_by),
    }
    state = JobState(_one(tx, "open_session", params)["state"])
    if opened.total >= MANY_SLICES:
        # every connection then plans its statements anew: those planned while the table was small would read it whole
        tx.execute("ANALYZE (SKIP_LOCKED) slice")
    return state


def reconcile(tx: Connection, claim: Claim, listed: Sequence[int]) -> Reconciled:
    """Make the slices what the store's list says; the job goes on to `uploading`, or `finishing` if none is missing."""
    row = _one(tx, "reconcile", {**claim.params(), "listed": list(listed)})
    return Reconciled(JobState(row["state"]), row["slices_left"], row["missing"])


def succeed(tx: Connection, claim: Claim, result: ResultDocument) -> None:
    """End the job well: the object is proven ours."""
    _one(tx, "succeed", {**claim.params(), "result": Jsonb(result)})


def fail(
    tx: Connection, claim: Claim, error: ErrorDocument, *, abort_delay_s: float = 60.0, sent_bytes: int = 0
) -> JobState:
    """End the job badly, by the holder of its step or of a slice; an abort is only put off, the second time so long.

    ``sent_bytes``: how many bytes of the claim's content were acknowledged.
    """
    params = {"error": Jsonb(error), "abort_delay_s": abort_delay_s, "sent_bytes": sent_bytes}
    return JobState(_one(tx, "fail", {**claim.params(), **params})["state"])


def quarantine(tx: Connection, job_id: UUID, epoch: int, error: ErrorDocument) -> None:
    """End the job badly, by the dispatcher; nothing happens if it has ended or begun afresh meanwhile."""
    params = {"job": job_id, "epoch": epoch, "number": None, "token": None, "worker": None, "actor": "dispatcher"}
    tx.execute(sql("fail"), params | {"error": Jsonb(error), "abort_delay_s": None, "sent_bytes": 0})


def new_epoch(tx: Connection, claim: Claim, error: ErrorDocument, delay: timedelta | None) -> JobState:
    """Start the job afresh with a new session, by the holder of its step or of a slice."""
    params = {"error": Jsonb(error), "delay_s": None if delay is None else delay.total_seconds(), "other_file": False}
    return JobState(_one(tx, "new_epoch", {**claim.params(), **params})["state"])


def take_other_file(tx: Connection, claim: Claim, error: ErrorDocument) -> JobState:
    """Start a job that was put back to work afresh, its file being another one now; forget the old one."""
    params = {"error": Jsonb(error), "delay_s": None, "other_file": True}
    return JobState(_one(tx, "new_epoch", {**claim.params(), **params})["state"])


def cancelled(tx: Connection, claim: Claim, left_open: str | None) -> None:
    """End a cancelled job; ``left_open`` says why its session was left to expire."""
    _one(tx, "cancelled", {**claim.params(), "left_open": left_open})


def note(tx: Connection, claim: Claim, kind: str, cause: Mapping[str, int]) -> None:
    """Write an event that moves nothing, by the holder of the job's step.

    Raises:
        StaleClaim: the step is no longer held.
    """
    _one(tx, "note", {**claim.params(), "kind": kind, "cause": Jsonb(cause)})


def dispatch(tx: Connection, steps: Sequence[UUID], slices: Sequence[tuple[UUID, int]]) -> list[Dispatched]:
    """Mark what was chosen as dispatched, with a new token; return what was still due."""
    params = {"steps": list(steps), "jobs": [job for job, _ in slices], "numbers": [number for _, number in slices]}
    return [Dispatched.from_row(row) for row in tx.execute(sql("dispatch"), params)]


def redispatch(tx: Connection, before: datetime | None = None) -> list[Dispatched]:
    """Return what was dispatched before a time (None: everything), to be published again with the same token."""
    return [Dispatched.from_row(row) for row in tx.execute(sql("redispatch"), {"before": before})]


def promote_due(tx: Connection) -> bool:
    """Make due what waited until now, and dispatch aborts whose claims have ended; says whether there was any."""
    row = tx.execute(sql("wake")).fetchone()
    return row is not None and any(row.values())


def rescue(tx: Connection) -> list[FreedClaim]:
    """Take back what dead, stopped or stuck workers hold; return what was freed."""
    return [FreedClaim(**row) for row in tx.execute(sql("rescue"))]


def end_abandoned(tx: Connection, longest: LongestLeases) -> list[UUID]:
    """End abandoned jobs of which no request can be under way; return their ids."""
    params = {
        "init_lease_s": longest.init_s,
        "finish_lease_s": longest.finish_s,
        "slack_s": longest.slice_slack_s,
        "low_speed": longest.low_speed_bytes_per_s,
    }
    return [row["id"] for row in tx.execute(sql("end_abandoned"), params)]
