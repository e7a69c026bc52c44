"""Send one slice: claim, read exactly its range, put it, checkpoint."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worker.errors import Transient
from worker.jobs import transitions
from worker.jobs.leases import Acknowledged, Claim
from worker.log import get_log
from worker.stores.base import Put
from worker.tasks.outcome import DATABASE_ERRORS, store_answered
from worker.tasks.runtime import DEADLINE_S, LEASE_SLACK_S

if TYPE_CHECKING:
    from worker.tasks.guard import ClaimGuard
    from worker.tasks.runtime import Runtime

Row = dict[str, Any]
CHECKPOINT_AGAIN_S = 0.25
log = get_log(__name__)


def claim_slice(rt: Runtime, claim: Claim, guard: ClaimGuard) -> Row:
    """Take the slice, for as long as its size allows at the store's low speed.

    Raises:
        StaleClaim: somebody else has it, or nobody is to have it.
    """
    low_speed = min((p.low_speed_bytes_per_s for p in rt.settings.profiles.stores.values()), default=1)
    before_s = guard.deadline_s  # the guard was made before the claim: the lease outlasts the deadline
    with rt.db.connection() as tx:
        row = transitions.claim_slice(
            tx, claim, low_speed=low_speed, slack=timedelta(seconds=DEADLINE_S + LEASE_SLACK_S)
        )
    guard.deadline_s = before_s + row["slice_size_bytes"] / low_speed
    rt.note_claimed(row["dispatched_at"])
    return row


def send_slice(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Send the claimed slice and record it.

    Raises:
        SlicewayError: as the source, the store and the guard have it; `StaleClaim` if the checkpoint came too late.
    """
    store = rt.store(rt.profile(row))
    body = rt.buffer(row["slice_size_bytes"])
    with rt.source(row) as source:
        source.read_into(body, row["offset_bytes"])
    put = store.put_slice(row["key"], row["session"], row["offset_bytes"], body, guard)
    tag, digest = (put.tag, put.digest) if isinstance(put, Put) else (None, None)
    left = _checkpoint(rt, Acknowledged(claim, tag, digest), guard)
    log.debug("slice.checkpointed", job_id=str(claim.job_id), number=claim.number, slices_left=left)
    store_answered(rt, row)
    rt.nudge()


def _checkpoint(rt: Runtime, done: Acknowledged, guard: ClaimGuard) -> int | None:
    """Record what the store has acknowledged; a database that is away is waited for until the claim's deadline.

    A stop of the process does not hold it back: what is acknowledged need not be sent again.
    """
    while True:
        try:
            left: int | None = rt.checkpoints.write(done)["slices_left"]
        except DATABASE_ERRORS as error:
            if guard.remaining_s() == 0.0 or rt.stopping.wait(CHECKPOINT_AGAIN_S):
                raise Transient(f"the checkpoint could not be written: {error}", code="database_unavailable") from error
        else:
            return left
