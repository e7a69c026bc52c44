"""An unfinished upload at the job's key that the job did not begin: discard it once it is abandoned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import Permanent, SessionGone
from worker.jobs import transitions
from worker.jobs.states import Event
from worker.stores.base import AbortSkipped, Listing, Stored
from worker.tasks.verify import mark_of_any_epoch

if TYPE_CHECKING:
    from worker.jobs.rows import ClaimedJob
    from worker.stores.base import StoreDriver
    from worker.tasks.context import TaskContext


def discard_foreign(ctx: TaskContext[ClaimedJob], store: StoreDriver) -> None:
    """Discard an unfinished upload that is not ours, if it is abandoned.

    Raises:
        Permanent: `upload_in_progress`: another client sends to it, or an object at the key could be deleted too.
    """
    key, guard = ctx.job.key, ctx.guard
    if store.head(key, guard) is not None:
        raise in_progress(key, "an unfinished upload and an object are at the key")
    before = _unfinished(ctx, store)
    if before is None:
        return
    guard.wait(ctx.rt.timers.foreign_upload_recheck_s)
    after = _unfinished(ctx, store)
    if after is not None:
        if after != before:
            raise in_progress(key, "another client is uploading to the key")
        # it may be the job's own of an earlier epoch, which the store had reported gone
        ctx.rt.revalidate_claim(guard)
        outcome = store.abort(key, None, guard, mark=mark_of_any_epoch(ctx.job))
        if isinstance(outcome, AbortSkipped):
            raise in_progress(key, outcome.reason)
    seen = {"slices": len(before.slices)}
    ctx.write(lambda tx: transitions.note(tx, ctx.claim, Event.FOREIGN_SESSION_DISCARDED, seen))


def in_progress(key: str, why: str) -> Permanent:
    """Return the error of a job whose key another upload writes to."""
    return Permanent(
        f"{why}: {key!r}",
        code="upload_in_progress",
        advice="Wait until the other upload has ended, or remove it at the store; then retry.",
    )


def _unfinished(ctx: TaskContext[ClaimedJob], store: StoreDriver) -> Listing | None:
    try:
        listing = store.list_slices(ctx.job.key, None, ctx.guard)
    except SessionGone:
        return None
    if isinstance(listing, Stored):
        raise in_progress(ctx.job.key, "another upload to the key was completed in this moment")
    return listing
