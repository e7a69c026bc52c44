"""Complete the object, and believe it only on proof; discard what was begun for a cancelled job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.errors import (
    Incomplete,
    ObjectExists,
    Permanent,
    SessionGone,
    StoreError,
    StoreUnusable,
    Transient,
    Unknown,
)
from worker.jobs import aborts, leases, transitions
from worker.jobs.plan import Plan
from worker.jobs.proof import Doubt, Proof
from worker.stores.base import LeftOpen, Listing
from worker.tasks.outcome import store_answered
from worker.tasks.verify import look_for_proof, mark_of, result_of, unverified, wanted_of

if TYPE_CHECKING:
    from worker.jobs.leases import Claim
    from worker.stores.base import StoreDriver
    from worker.tasks.guard import ClaimGuard
    from worker.tasks.runtime import Runtime

Row = dict[str, Any]
ABORT_FOR_S = 24 * 3600.0
"""After so long without success at the abort, the session is left to expire."""
LOOK_FOR_S = 3600.0
"""So long a store that does not answer is asked whether an init that was cut off has begun anything there."""
ELSEWHERE_FOR_S = 10.0
"""So long the abort goes from worker to worker where the store is not in this one's file: another may have it yet."""


def run_finish(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Complete the upload: compare the store's list with the checkpoints, finish, look for proof.

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
    listed = plan.numbers((held.offset_bytes, held.size_bytes) for held in listing.held)
    if len(listed) < plan.total:
        rt.write(lambda tx: transitions.reconcile(tx, claim, listed), guard)
        rt.nudge()
        return
    rt.hold(guard)
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
        rt.hold(guard)
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
    stored, proof = look_for_proof(
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
    if proof is Doubt.NO_DIGEST:
        raise unverified(row) from error
    if isinstance(error, ObjectExists):
        raise error
    if stored is None and error is None:
        raise Transient(f"finish was acknowledged, but {row['key']!r} is not to be seen", own_fault=True)
    if error is not None and proof is Doubt.NOT_OURS:
        if error.code == "digest_mismatch":
            raise error  # this store has discarded the upload by itself
        raise SessionGone(f"the session of {row['key']!r} is gone, and no object of ours is there") from error
    raise Permanent(
        f"an object is at {row['key']!r}, but nothing shows that it is of this upload",
        code="unproven",
        advice="Look at the object: somebody else may write to the key. Retry to upload it again.",
    )


def run_abort(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Clean up after a cancel: discard the session, or say that it was left open. A finish that was faster stands.

    Raises:
        StoreError: the store did not let us; tried again for as long as `_patience_of` has it.
    """
    left_open: str | None = None
    try:
        store = rt.store(rt.profile(row))
        verdict = _was_faster(rt, claim, row, guard)
        if verdict is None:
            return
        rt.hold(guard)
        left_open = _discard(store, row, guard)
        # what could not be discarded may have become the object since the look, by a finish that was under way
        if left_open is not None or row["session"] is None:
            verdict = _was_faster(rt, claim, row, guard)
        if verdict is None:
            return
        if verdict is Doubt.NO_DIGEST and left_open is None:
            left_open = "an object of this job is at the key, and no digest verifies it: deleting it is not ours to do"
        store_answered(rt, row, guard)
    except StoreError as error:
        left_open = _given_up(rt, claim, row, error, guard)
    rt.write(lambda tx: transitions.cancelled(tx, claim, left_open), guard)


def _given_up(rt: Runtime, claim: Claim, row: Row, error: StoreError, guard: ClaimGuard) -> str:
    """Return why the session is left, or raise: it is not the last attempt yet."""
    failing_for_s = row["failing_for_s"] or 0.0
    if error.code == "store_changed":
        if failing_for_s < ELSEWHERE_FOR_S * rt.timers.scale:
            raise Transient(f"{error.message} of {rt.name}; another worker may have it") from error
        return f"the store cannot be asked any more: {error.message}"
    if row["session"] is None and isinstance(error, StoreUnusable):
        # an init was cut off: what that may have left is not worth the wait for a store put right
        return f"the store did not let it be looked for: {error.message}"
    most_s = LOOK_FOR_S if row["session"] is None else ABORT_FOR_S
    # a job behind its store's breaker may not have had an attempt in all that time
    since_cancel_s = rt.write(lambda tx: aborts.cancelled_for_s(tx, claim.job_id), guard)
    if max(failing_for_s, since_cancel_s) < most_s:
        raise error
    asked = "answer whether there is one" if row["session"] is None else "let it be discarded"
    return f"the store did not {asked} for {most_s / 3600:.0f} h: {error.message}"


def _was_faster(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> Doubt | None:
    """Return None if the job's object was published before its cancel had its way: then the job has succeeded.

    Otherwise return what stands against it.
    """
    profile = rt.profile(row)
    store, wanted, gone = rt.store(profile), wanted_of(row, profile), row["finish_claims"] > 0
    stored, proof = look_for_proof(store, row["key"], wanted, guard, session_gone=gone, existed=row["existed"])
    if isinstance(proof, Doubt):
        return proof
    rt.write(lambda tx: transitions.succeed(tx, claim, result_of(row, proof, stored)), guard)
    store_answered(rt, row, guard)
    return None


def _discard(store: StoreDriver, row: Row, guard: ClaimGuard) -> str | None:
    """Discard the job's session; return why it was left, if it was."""
    if row["session"] is not None:
        outcome = store.abort(row["key"], row["session"], guard, mark=mark_of(row))
        return outcome.reason if isinstance(outcome, LeftOpen) else None
    try:
        listing = store.list_slices(row["key"], None, guard)
    except SessionGone:
        return None
    if not isinstance(listing, Listing):
        return None
    return (
        "an upload is unfinished at the key: this job's, if init was cut off before it heard its session, or another's"
    )
