"""Send one slice: claim, read exactly its range, put it, checkpoint."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from worker.db.pool import UNAVAILABLE
from worker.errors import SessionGone, StoreError
from worker.jobs import transitions
from worker.jobs.leases import Acknowledged, Claim
from worker.stores.base import SliceAck, Stored
from worker.tasks.context import WRITE_AGAIN_S
from worker.tasks.settle import store_answered
from worker.telemetry.emit import emit
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from worker.jobs.rows import ClaimedSlice
    from worker.stores.base import StoreDriver
    from worker.tasks.context import Runtime, TaskContext
    from worker.tasks.guard import ClaimGuard

log = get_logger(__name__)


def claim_slice(rt: Runtime, claim: Claim, guard: ClaimGuard, *, reclaim: bool) -> ClaimedSlice:
    """Take the slice, for as long as its size allows at the store's low speed; the lease is that of the slowest store.

    Raises:
        StaleClaim: another worker has it, or none may have it.
    """
    leases = rt.leases  # taken once: a reload of the profiles may replace them
    low_speed, slack = leases.low_speed_bytes_per_s, timedelta(seconds=leases.slice_slack_s)
    with rt.db.connection() as tx:
        part = transitions.claim_slice(tx, claim, low_speed=low_speed, slack=slack, reclaim=reclaim)
    profile = leases.stores.get(part.store)
    if profile is not None:
        low_speed = profile.low_speed_bytes_per_s
    # counted from before the claim: the lease outlasts it
    guard.deadline_s += rt.timers.request_limit_s(profile) - rt.timers.deadline_s + part.size_bytes / low_speed
    return part


def send_slice(ctx: TaskContext[ClaimedSlice]) -> None:
    """Send the claimed slice and record it.

    Raises:
        SlicewayError: as the source, the store and the guard have it; `StaleClaim` if the checkpoint came too late.
    """
    rt, claim = ctx.rt, ctx.claim
    store = rt.drivers.of(rt.profile_for_upload(ctx.job))
    put = SliceAck() if _is_held(store, ctx) else _put(store, ctx)
    tag, digest = (put.tag, put.digest) if isinstance(put, SliceAck) else (None, None)
    done = Acknowledged(claim, tag, digest)
    left = _checkpoint(rt, done, ctx.guard)
    emit("slice.checkpointed", job_id=claim.job_id, number=claim.number, slices_left=left)
    if not left:
        rt.notify_dispatcher()  # the finish is due
    store_answered(ctx)


def _put(store: StoreDriver, ctx: TaskContext[ClaimedSlice]) -> SliceAck | Stored:
    rt, part = ctx.rt, ctx.job
    body = rt.transfers.buffer(part.size_bytes)
    with rt.source(part) as source:
        source.read_into(body, part.offset_bytes)
    with rt.transfers.sending(ctx.guard, part.store, body.nbytes):
        return store.put_slice(part.key, part.session, part.offset_bytes, body, ctx.guard)


def _is_held(store: StoreDriver, ctx: TaskContext[ClaimedSlice]) -> bool:
    """Say whether the store has the slice: its own list is asked where the answer to the last try was lost.

    It was sent in this very session and from this very file: a new epoch has new rows, without an error.
    """
    part = ctx.job
    if not part.unanswered:
        return False
    try:
        listing = store.list_slices(part.key, part.session, ctx.guard)
    except SessionGone:
        return False  # the slice's own answer decides, as if nothing had been asked
    except StoreError as error:
        error.unanswered = True  # to the last try there is still no answer
        raise
    if isinstance(listing, Stored) or listing.handle != part.session:
        return False
    wanted = (part.offset_bytes, part.size_bytes)
    held = any((found.offset_bytes, found.size_bytes) == wanted for found in listing.slices)
    log.debug("slice.listed", held=held)
    return held


def _checkpoint(rt: Runtime, done: Acknowledged, guard: ClaimGuard) -> int | None:
    """Record what the store has acknowledged; a database that is away is waited for until the claim's deadline.

    A stop of the process does not hold it back: what is acknowledged need not be sent again.
    """
    while True:
        try:
            left = rt.checkpoints.write(done).slices_left
        except UNAVAILABLE:
            if guard.remaining_s() == 0.0 or rt.stopping.wait(WRITE_AGAIN_S):
                raise
        else:
            return left
