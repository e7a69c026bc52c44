"""Discard what a job that was cancelled or has ended left at the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import (
    SessionGone,
    StoreError,
    StoreUnusable,
    Transient,
)
from worker.jobs import aborts, transitions
from worker.jobs.proof import NotProven
from worker.stores.base import AbortSkipped, Listing
from worker.tasks.settle import store_answered
from worker.tasks.verify import mark_of, result_of, verify_object, wanted_of
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from worker.jobs.rows import ClaimedJob
    from worker.stores.base import StoreDriver
    from worker.tasks.context import TaskContext


ABORT_FOR_S = 24 * 3600.0
"""After so long without success at the abort, the session is left to expire."""
LOOK_FOR_S = 3600.0
"""So long a store that does not answer is asked whether an init that was cut off has begun anything there."""
ELSEWHERE_FOR_S = 10.0
"""So long the abort goes from worker to worker where the store is not in this one's file: another may have it yet."""


def run_abort(ctx: TaskContext[ClaimedJob]) -> None:
    """Clean up after a cancel: discard the session, or say that it was left open. A finish that was faster stands.

    Raises:
        StoreError: the store did not let us; retried until `_given_up` gives a reason.
    """
    rt, job = ctx.rt, ctx.job
    left_open: str | None = None
    try:
        store = rt.drivers.of(rt.profile(job))
        verdict = _was_faster(ctx)
        if verdict is None:
            return
        rt.revalidate_claim(ctx.guard)
        left_open = _discard(store, ctx)
        # an upload that could not be discarded may have become the object, by a finish that was under way
        if left_open is not None or job.session is None:
            verdict = _was_faster(ctx)
        if verdict is None:
            return
        if verdict is NotProven.NO_DIGEST and left_open is None:
            left_open = "an object of this job is at the key, and no digest verifies it: deleting it is not ours to do"
        store_answered(ctx)
    except StoreError as error:
        left_open = _given_up(ctx, error)
    ctx.write(lambda tx: transitions.cancelled(tx, ctx.claim, left_open))


def _given_up(ctx: TaskContext[ClaimedJob], error: StoreError) -> str:
    """Return why the session is left, or raise: it is not the last attempt yet."""
    rt, began = ctx.rt, ctx.job.session is not None
    failing_for_s = ctx.job.failures.failing_for_s or 0.0
    if error.code == "store_changed":
        if failing_for_s < ELSEWHERE_FOR_S * rt.timers.scale:
            raise Transient(f"{error.message} of {rt.name}; another worker may have it") from error
        return f"the store cannot be asked any more: {error.message}"
    if not began and isinstance(error, StoreUnusable):
        # an init was cut off: what that may have left is not worth the wait for a store put right
        return f"the store did not let it be looked for: {error.message}"
    most_s = ABORT_FOR_S if began else LOOK_FOR_S
    # a job behind its store's breaker may not have had an attempt in all that time
    since_cancel_s = ctx.write(lambda tx: aborts.cancelled_for_s(tx, ctx.claim.job_id))
    if max(failing_for_s, since_cancel_s) < most_s:
        raise error
    asked = "let it be discarded" if began else "answer whether there is one"
    return f"the store did not {asked} for {most_s / 3600:.0f} h: {error.message}"


def _was_faster(ctx: TaskContext[ClaimedJob]) -> NotProven | None:
    """Return None if the job's object was published before its cancel had its way: then the job has succeeded.

    Otherwise return what stands against it.
    """
    job, profile = ctx.job, ctx.rt.profile(ctx.job)
    wanted, gone = wanted_of(job, profile, job.size_bytes, job.digests), job.finish_claims > 0
    stored, proof = verify_object(
        ctx.rt.drivers.of(profile), job.key, wanted, ctx.guard, session_gone=gone, existed=job.existed
    )
    if isinstance(proof, NotProven):
        return proof
    ctx.write(lambda tx: transitions.succeed(tx, ctx.claim, result_of(job.size_bytes, proof, stored)))
    emit("job.succeeded", job_id=job.id, store=job.store, tenant=job.tenant)
    store_answered(ctx)
    return None


def _discard(store: StoreDriver, ctx: TaskContext[ClaimedJob]) -> str | None:
    """Discard the job's session; return why it was left, if it was."""
    job = ctx.job
    if job.session is not None:
        outcome = store.abort(job.key, job.session, ctx.guard, mark=mark_of(job))
        return outcome.reason if isinstance(outcome, AbortSkipped) else None
    try:
        listing = store.list_slices(job.key, None, ctx.guard)
    except SessionGone:
        return None
    if not isinstance(listing, Listing):
        return None
    return (
        "an upload is unfinished at the key: this job's, if init was cut off before it heard its session, or another's"
    )
