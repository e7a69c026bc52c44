"""Begin an upload: open the source, take its fingerprint (and digests, if asked), ask the store for a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import ObjectExists, SessionGone, StoreError, Unknown
from worker.jobs import transitions
from worker.jobs.plan import Plan, choose_slice_bytes, goes_whole, plan_of_unfinished
from worker.jobs.rows import InitProgress, OpenedSession
from worker.stores.base import Session, Stored, UploadInProgress
from worker.tasks.foreign_upload import discard_foreign, in_progress
from worker.tasks.init_work import InitWork
from worker.tasks.opening import open_for_init
from worker.tasks.resume import take_up_again
from worker.tasks.settle import store_answered
from worker.tasks.verify import intent_of
from worker.tasks.whole_file import put_whole

if TYPE_CHECKING:
    from worker.jobs.rows import ClaimedJob
    from worker.stores.base import Digests
    from worker.tasks.context import TaskContext


def run_init(ctx: TaskContext[ClaimedJob]) -> None:
    """Begin the upload, or take it up again where it stands.

    Raises:
        SlicewayError: as the source, the store and the guard have it.
    """
    job, profile = ctx.job, ctx.rt.profile_for_upload(ctx.job)
    with open_for_init(ctx) as source:
        learned = InitProgress(source.fingerprint, source.size_bytes, job.hashing, job.digests, job.existed)
        _run(InitWork(ctx, ctx.rt.drivers.of(profile), source, profile, learned))
    store_answered(ctx)


def _run(work: InitWork) -> None:
    if work.job.session is not None:
        work.save()
        take_up_again(work)
        return
    try:
        requested, size_bytes = work.job.slice_size, work.source.size_bytes
        if goes_whole(size_bytes, requested=requested, whole_bytes=work.profile.whole_bytes):
            put_whole(work)
        else:
            _begin(work, work.digests())
    except StoreError:
        work.write_down()  # it is not over: whoever goes on is to know the file that it began with
        raise


def _begin(work: InitWork, digests: Digests | None) -> None:
    work.remember_what_was_there()
    try:
        answer = _ask(work, digests)
        if isinstance(answer, UploadInProgress):
            # after a lost session, what is there may be just what was lost: begin with nothing
            if digests is not None and work.job.failures.session_losses == 0 and _adopt(work, digests):
                return
            discard_foreign(work.ctx, work.store)
            answer = _ask(work, digests)
    except ObjectExists as error:
        work.succeed_if_ours(work.wanted(), error)
        return
    match answer:
        case Session():
            _open(work, answer, held=[])
        case Stored():
            work.succeed_if_ours(work.wanted(), None)
        case UploadInProgress():
            raise in_progress(work.job.key, "another upload to the key began while ours did")


def _ask(work: InitWork, digests: Digests | None) -> Session | UploadInProgress | Stored:
    requested, limits = work.job.slice_size, work.store.limits
    slice_bytes = choose_slice_bytes(
        work.source.size_bytes, requested=requested, default=work.profile.slice_bytes,
        sizes=limits.slice_sizes, max_slices=limits.max_slices,
    )  # fmt: skip
    return work.store.init(intent_of(work.job, work.source.size_bytes), slice_bytes, digests, work.guard)


def _open(work: InitWork, session: Session, held: list[int]) -> None:
    """Store the session, the file that it is of, the plan and the slices in one transaction.

    ``held``: slices that the store has already, and whose content its own list proves by the file's digest.
    """
    plan = Plan(work.source.size_bytes, session.slice_bytes)
    opened = OpenedSession(
        handle=session.handle,
        fingerprint=work.source.fingerprint,
        size_bytes=work.source.size_bytes,
        slice_bytes=session.slice_bytes,
        ordered=session.ordered,
        total=plan.total,
        held=held,
        bytes_done=plan.bytes_of(held),
    )
    work.ctx.write(lambda tx: transitions.open_session(tx, work.ctx.claim, opened))
    work.rt.notify_dispatcher()


def _adopt(work: InitWork, digests: Digests) -> bool:
    """Go on with the unfinished upload if the store's own list names the file's digest; say whether it does.

    That init was given the digest says nothing of an upload that was there before: half of another file, begun
    without a digest, is answered in the same way.
    """
    try:
        listing = work.store.list_slices(work.job.key, None, work.guard)
    except SessionGone:
        return False
    if isinstance(listing, Stored):
        raise Unknown(f"the upload to {work.job.key!r} was completed by another client in this moment")
    size_bytes, limits = work.source.size_bytes, work.store.limits
    if listing.digest != digests.value or listing.size_bytes not in (None, size_bytes):
        return False
    held = [(each.offset_bytes, each.size_bytes) for each in listing.slices]
    plan = plan_of_unfinished(
        size_bytes, listing.slice_bytes, held, most_bytes=limits.max_slice_bytes, max_slices=limits.max_slices
    )
    if plan is None:
        return False
    _open(work, Session(listing.handle, plan.slice_bytes, listing.ordered), plan.numbers(held))
    return True
