"""Complete the object, and believe it only on proof; discard what was begun for a cancelled job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from worker.jobs.leases import Claim
    from worker.stores.base import StoreDriver
    from worker.tasks.context import Runtime
    from worker.tasks.guard import ClaimGuard

Row = dict[str, Any]


def run_finish(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Complete the upload: compare the store's list with the checkpoints, finish, verify the object.

    Raises:
        SlicewayError: as the source, the store and the guard have it.
    """
    _complete(rt, claim, row, guard)
    store_answered(rt, row, guard)


def _complete(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    store = rt.store(rt.profile_for_upload(row))
    rt.source(row).close()  # it is still what was uploaded, or this raises
    _refuse_slices_adopted_by_size(rt, claim, row, guard)
    listing = _listed(store, row, guard)
    if listing is None:
        _prove(rt, claim, row, guard, SessionGone(f"the session of {row['key']!r} is no longer at the store"))
        return
    plan = Plan(row["size_bytes"], row["slice_bytes"])
    listed = plan.numbers((each.offset_bytes, each.size_bytes) for each in listing.slices)
    if len(listed) < plan.total:
        rt.write(lambda tx: transitions.reconcile(tx, claim, listed), guard)
        rt.notify_dispatcher()
        return
    rt.revalidate_claim(guard)
    error = _finish(store, row, guard)
    if error is not None and _listed(store, row, guard) is not None:
        raise _without_effect(rt, row, guard, error) from error
    _prove(rt, claim, row, guard, error)


def _refuse_slices_adopted_by_size(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Send no finish for content that nothing shows: a worker of 0.1 may have opened the session of this epoch.

    Raises:
        SessionGone: it has; the upload begins afresh.
    """
    asked_digest = row["digests"] is not None  # without it nothing was ever adopted
    if asked_digest and rt.write(lambda tx: leases.adopted_by_size(tx, claim.job_id, claim.epoch), guard):
        raise SessionGone(f"the upload of {row['key']!r} holds slices of which nothing shows the content")


def _finish(store: StoreDriver, row: Row, guard: ClaimGuard) -> StoreError | None:
    """Ask for the object; return the failure after which it may be there nevertheless, None if it was acknowledged."""
    try:
        store.finish(row["key"], row["session"], row["size_bytes"], guard)
    except (Incomplete, ObjectExists, SessionGone, Unknown) as error:
        return error
    return None


def _without_effect(rt: Runtime, row: Row, guard: ClaimGuard, error: StoreError) -> StoreError:
    """Return what follows from a finish after which the session is still unfinished."""
    if isinstance(error, ObjectExists):
        return error
    mismatch = error.code == "digest_mismatch"
    if mismatch or isinstance(error, Incomplete):
        # the store lists every slice and yet refuses: only a fresh session can help, and this one would be in its way
        rt.revalidate_claim(guard)
        rt.store(rt.profile(row)).abort(row["key"], row["session"], guard, mark=mark_of(row))
        return SessionGone(error.message, code="digest_mismatch" if mismatch else None, answer=error.answer)
    return Transient(f"finish of {row['key']!r} had no effect yet: {error.message}", answer=error.answer)


def _listed(store: StoreDriver, row: Row, guard: ClaimGuard) -> Listing | None:
    """Return what the store holds of our own session; None if it is no longer unfinished there."""
    try:
        listing = store.list_slices(row["key"], row["session"], guard)
    except SessionGone:
        return None
    return listing if isinstance(listing, Listing) and listing.handle == row["session"] else None


def _prove(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard, error: StoreError | None) -> None:
    """Look at the object; succeed on proof. ``error`` None: the store acknowledged the finish.

    Raises:
        ObjectExists: the store said so, and the object is not ours.
        SessionGone: nothing is there: start afresh.
        Transient: the store acknowledged the finish, but shows nothing yet.
        Permanent: `unproven`: an object is there that nothing shows to be ours, or not in the way that was asked for.
    """
    profile = rt.profile(row)
    stored, proof = verify_object(
        rt.store(profile),
        row["key"],
        wanted_of(row, profile),
        guard,
        acknowledged=error is None,
        session_gone=not isinstance(error, ObjectExists),
        existed=row["existed"],
    )
    if isinstance(proof, Proof):
        rt.write(lambda tx: transitions.succeed(tx, claim, result_of(row, proof, stored)), guard)
        return
    if proof is NotProven.NO_DIGEST:
        raise unverified(row) from error
    if isinstance(error, ObjectExists):
        raise error
    if stored is None and error is None:
        raise Transient(f"finish was acknowledged, but {row['key']!r} is not to be seen", counts_as_attempt=True)
    if error is not None and proof is NotProven.NOT_OURS:
        if error.code == "digest_mismatch":
            raise error  # this store has discarded the upload by itself
        raise SessionGone(f"the session of {row['key']!r} is gone, and no object of ours is there") from error
    raise Permanent(
        f"an object is at {row['key']!r}, but nothing shows that it is of this upload",
        code="unproven",
        advice="Look at the object: another client may write to the key. Retry to upload it again.",
    )
