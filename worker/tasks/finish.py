"""Complete the object, and believe it only on proof; discard what was begun for a cancelled job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import (
    Incomplete,
    ObjectExists,
    Permanent,
    SessionGone,
    StoreError,
    Transient,
    Unknown,
)
from worker.jobs import leases, transitions
from worker.jobs.plan import Plan
from worker.jobs.proof import NotProven, Proof
from worker.stores.base import Listing
from worker.tasks.settle import store_answered
from worker.tasks.verify import mark_of, result_of, unverified, verify_object, wanted_of
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from worker.jobs.rows import ClaimedJob
    from worker.stores.base import StoreDriver
    from worker.tasks.context import TaskContext


def run_finish(ctx: TaskContext[ClaimedJob]) -> None:
    """Complete the upload: compare the store's list with the checkpoints, finish, verify the object.

    Raises:
        SlicewayError: as the source, the store and the guard have it.
    """
    _complete(ctx)
    store_answered(ctx)


def _complete(ctx: TaskContext[ClaimedJob]) -> None:
    rt, job, guard = ctx.rt, ctx.job, ctx.guard
    store = rt.drivers.of(rt.profile_for_upload(job))
    rt.source(job).close()  # it is still what was uploaded, or this raises
    _refuse_slices_adopted_by_size(ctx)
    listing = _listed(store, ctx)
    if listing is None:
        _prove(ctx, SessionGone(f"the session of {job.key!r} is no longer at the store"))
        return
    size_bytes, slice_bytes, _ = job.upload()
    plan = Plan(size_bytes, slice_bytes)
    listed = plan.numbers((each.offset_bytes, each.size_bytes) for each in listing.slices)
    if len(listed) < plan.total:
        ctx.write(lambda tx: transitions.reconcile(tx, ctx.claim, listed))
        rt.notify_dispatcher()
        return
    rt.revalidate_claim(guard)
    error = _finish(store, ctx)
    if error is not None and _listed(store, ctx) is not None:
        raise _without_effect(ctx, error) from error
    _prove(ctx, error)


def _refuse_slices_adopted_by_size(ctx: TaskContext[ClaimedJob]) -> None:
    """Send no finish for content that nothing shows: a worker of 0.1 may have opened the session of this epoch.

    Raises:
        SessionGone: it has; the upload begins afresh.
    """
    claim = ctx.claim
    asked_digest = ctx.job.digests is not None  # without it nothing was ever adopted
    if asked_digest and ctx.write(lambda tx: leases.adopted_by_size(tx, {claim.job_id: claim.epoch})):
        raise SessionGone(f"the upload of {ctx.job.key!r} holds slices of which nothing shows the content")


def _finish(store: StoreDriver, ctx: TaskContext[ClaimedJob]) -> StoreError | None:
    """Ask for the object; return the failure after which it may be there nevertheless, None if it was acknowledged."""
    job = ctx.job
    size_bytes, _, handle = job.upload()
    try:
        store.finish(job.key, handle, size_bytes, ctx.guard)
    except (Incomplete, ObjectExists, SessionGone, Unknown) as error:
        return error
    return None


def _without_effect(ctx: TaskContext[ClaimedJob], error: StoreError) -> StoreError:
    """Return what follows from a finish after which the session is still unfinished."""
    rt, job, guard = ctx.rt, ctx.job, ctx.guard
    if isinstance(error, ObjectExists):
        return error
    mismatch = error.code == "digest_mismatch"
    if mismatch or isinstance(error, Incomplete):
        # the store lists every slice and yet refuses: only a fresh session can help, and this one would be in its way
        rt.revalidate_claim(guard)
        rt.drivers.of(rt.profile(job)).abort(job.key, job.session, guard, mark=mark_of(job))
        return SessionGone(error.message, code="digest_mismatch" if mismatch else None, answer=error.answer)
    return Transient(f"finish of {job.key!r} had no effect yet: {error.message}", answer=error.answer)


def _listed(store: StoreDriver, ctx: TaskContext[ClaimedJob]) -> Listing | None:
    """Return what the store holds of our own session; None if it is no longer unfinished there."""
    try:
        listing = store.list_slices(ctx.job.key, ctx.job.session, ctx.guard)
    except SessionGone:
        return None
    return listing if isinstance(listing, Listing) and listing.handle == ctx.job.session else None


def _prove(ctx: TaskContext[ClaimedJob], error: StoreError | None) -> None:
    """Look at the object; succeed on proof. ``error`` None: the store acknowledged the finish.

    Raises:
        ObjectExists: the store said so, and the object is not ours.
        SessionGone: nothing is there: start afresh.
        Transient: the store acknowledged the finish, but shows nothing yet.
        Permanent: `unproven`: an object is there that nothing shows to be ours, or not in the way that was asked for.
    """
    job, profile = ctx.job, ctx.rt.profile(ctx.job)
    stored, proof = verify_object(
        ctx.rt.drivers.of(profile),
        job.key,
        wanted_of(job, profile, job.size_bytes, job.digests),
        ctx.guard,
        acknowledged=error is None,
        session_gone=not isinstance(error, ObjectExists),
        existed=job.existed,
    )
    if isinstance(proof, Proof):
        ctx.write(lambda tx: transitions.succeed(tx, ctx.claim, result_of(job.size_bytes, proof, stored)))
        emit("job.succeeded", job_id=job.id, store=job.store, tenant=job.tenant)
        return
    if proof is NotProven.NO_DIGEST:
        raise unverified(job) from error
    if isinstance(error, ObjectExists):
        raise error
    if stored is None and error is None:
        raise Transient(f"finish was acknowledged, but {job.key!r} is not to be seen", counts_as_attempt=True)
    if error is not None and proof is NotProven.NOT_OURS:
        if error.code == "digest_mismatch":
            raise error  # this store has discarded the upload by itself
        raise SessionGone(f"the session of {job.key!r} is gone, and no object of ours is there") from error
    raise Permanent(
        f"an object is at {job.key!r}, but nothing shows that it is of this upload",
        code="unproven",
        advice="Look at the object: another client may write to the key. Retry to upload it again.",
    )
