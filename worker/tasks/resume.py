"""Take an upload up again that a retry has kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import SessionGone
from worker.jobs import transitions
from worker.jobs.plan import Plan
from worker.stores.base import Stored

if TYPE_CHECKING:
    from worker.tasks.init_work import InitWork


def take_up_again(work: InitWork) -> None:
    """Go on with the job's own session: what its list has counts, what it lacks is sent again."""
    gone = SessionGone(f"the session of {work.job.key!r} is no longer the one at the store")
    try:
        listing = work.store.list_slices(work.job.key, work.job.session, work.guard)
    except SessionGone as error:
        work.succeed_if_ours(work.wanted(), error)
        return
    if isinstance(listing, Stored) or listing.handle != work.job.session:
        work.succeed_if_ours(work.wanted(), gone)
        return
    _, slice_bytes, _ = work.job.upload()
    plan = Plan(work.source.size_bytes, slice_bytes)
    numbers = plan.numbers((each.offset_bytes, each.size_bytes) for each in listing.slices)
    work.ctx.write(lambda tx: transitions.reconcile(tx, work.ctx.claim, numbers))
    work.rt.notify_dispatcher()
