"""Begin an upload: open the source, take its fingerprint (and digests, if asked), ask the store for a session."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.errors import Interrupted, ObjectExists, Permanent, SessionGone, Stop, StoreError, Unknown
from worker.jobs import transitions
from worker.jobs.plan import Plan, choose_slice_bytes, goes_whole, plan_of_unfinished
from worker.jobs.proof import NotProven
from worker.jobs.rows import InitProgress, OpenedSession
from worker.jobs.states import JobState
from worker.stores.base import Digests, Session, Stored, UploadInProgress
from worker.tasks.foreign_upload import discard_foreign, in_progress
from worker.tasks.hashing import hash_source
from worker.tasks.opening import open_for_init
from worker.tasks.settle import store_answered
from worker.tasks.verify import (
    Verification,
    intent_of,
    result_of,
    unverified,
    verify_object,
    wanted_of,
    without_effect,
)

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.jobs.rows import ClaimedJob
    from worker.sources.base import Source
    from worker.stores.base import StoreDriver
    from worker.tasks.context import TaskContext


def run_init(ctx: TaskContext[ClaimedJob]) -> None:
    """Begin the upload, or take it up again where it stands.

    Raises:
        SlicewayError: as the source, the store and the guard have it.
    """
    job, profile = ctx.job, ctx.rt.profile_for_upload(ctx.job)
    with open_for_init(ctx) as source:
        learned = InitProgress(source.fingerprint, source.size_bytes, job.hashing, job.digests, job.existed)
        _Init(ctx, ctx.rt.store(profile), source, profile, learned).run()
    store_answered(ctx)


@dataclasses.dataclass
class _Init:
    """The one init that is running.

    Attributes:
        ctx: the claim at work.
        store: the job's.
        source: opened.
        profile: the store's.
        progress: what this init has learned; stored with its session, and wherever another worker may have to go on.
    """

    ctx: TaskContext[ClaimedJob]
    store: StoreDriver
    source: Source
    profile: StoreProfile
    progress: InitProgress

    def __post_init__(self) -> None:
        self.job, self.rt, self.guard = self.ctx.job, self.ctx.rt, self.ctx.guard

    def run(self) -> None:
        if self.job.session is not None:
            self.save()
            self.take_up_again()
            return
        try:
            requested, size_bytes = self.job.slice_size, self.source.size_bytes
            if goes_whole(size_bytes, requested=requested, whole_bytes=self.profile.whole_bytes):
                self.put_whole()
            else:
                self.begin(self.digests())
        except StoreError:
            self.write_down()  # it is not over: whoever goes on is to know the file that it began with
            raise

    def save(self, at_least_s: float = 0.0) -> None:
        """Store what is known, so that another worker can go on from it; extend the lease by a whole step, or more.

        Raises:
            Interrupted: the job was cancelled.
        """
        if self.write_down(at_least_s) is JobState.CANCELLING:
            raise Interrupted(Stop.CANCELLED)

    def write_down(self, at_least_s: float = 0.0) -> JobState:
        timers = self.rt.timers
        lease = timedelta(seconds=max(at_least_s, timers.init_limit_s(self.profile)) + timers.lease_slack_s)
        return self.ctx.write(lambda tx: transitions.save_progress(tx, self.ctx.claim, self.progress, lease))

    def learn(self, progress: InitProgress) -> None:
        self.progress = progress
        self.save()

    def wanted(self) -> Verification:
        return wanted_of(self.job, self.profile, self.progress.size_bytes, self.progress.digests)

    def digests(self) -> Digests | None:
        if self.job.verify != "file":
            return None
        self.save()  # hashing takes long: the API reports the size meanwhile, and the next worker hashes the same file
        found = hash_source(self.store, self.source, self.progress, self.guard, self.learn)
        if self.source.size_bytes:
            self.source.verify_unchanged()
        return found

    def put_whole(self) -> None:
        """Send a small file in one request: one task, two commits."""
        body = self.rt.buffer(self.source.size_bytes)
        self.source.read_into(body, 0)
        wanted = self.wanted()
        wanted.take_digest(self.store.limits.digest, body)
        self.remember_what_was_there()
        try:
            try:
                stored = self.send_once(body)
            except Permanent as error:
                if error.code != "upload_in_progress":
                    raise
                discard_foreign(self.ctx, self.store)
                stored = self.send_once(body)
        except (ObjectExists, Unknown) as error:
            self.succeed_if_ours(wanted, error)
        else:
            self.succeed_if_ours(wanted, None, in_one=stored.size_bytes is not None)

    def send_once(self, body: memoryview) -> Stored:
        """Send it, with as much time from now on as a slice of its size has: the wait for the slot took some.

        Its answer may take all of that, and what became of it is looked up afterwards.
        """
        request_s = self.rt.timers.request_limit_s(self.profile)
        limit_s = request_s + body.nbytes / self.profile.low_speed_bytes_per_s
        with self.rt.sending(self.guard, self.job.store, body.nbytes):
            if self.guard.remaining_s() < limit_s + request_s:
                self.save(limit_s + request_s)
                self.guard.extend(limit_s + request_s)
            with self.guard.within(limit_s):
                return self.store.put_whole(intent_of(self.job, self.source.size_bytes), body, self.guard)

    def remember_what_was_there(self) -> None:
        """Where an object may be replaced, record whether there was one: it must not count as ours later."""
        if self.progress.existed is None and self.job.overwrite:
            existed = self.store.head(self.job.key, self.guard) is not None
            self.learn(dataclasses.replace(self.progress, existed=existed))

    def succeed_if_ours(self, wanted: Verification, error: StoreError | None, *, in_one: bool = False) -> None:
        """Succeed if the object at the key is proven to be ours or equal, else let the error stand.

        ``error`` None: the store has acknowledged it; ``in_one``: as an upload in one request. `ObjectExists` proves
        nothing; others may have had their effect.
        """
        stored, proof = verify_object(
            self.store,
            self.job.key,
            wanted,
            self.guard,
            acknowledged=error is None,
            in_one=in_one,
            session_gone=error is not None and not isinstance(error, ObjectExists),
            existed=self.progress.existed,
            sent=self.job.session is None and not isinstance(error, ObjectExists),
        )
        if proof is NotProven.NO_DIGEST:
            raise unverified(self.job) from error
        if isinstance(proof, NotProven):
            if stored is None and isinstance(error, Unknown):
                raise without_effect(error) from error
            raise error or Unknown(f"the store says that {self.job.key!r} is stored, but shows no such object")
        result = result_of(self.source.size_bytes, proof, stored)
        self.ctx.write(lambda tx: transitions.succeed(tx, self.ctx.claim, result))

    def begin(self, digests: Digests | None) -> None:
        self.remember_what_was_there()
        try:
            answer = self.ask(digests)
            if isinstance(answer, UploadInProgress):
                # after a lost session, what is there may be just what was lost: begin with nothing
                if digests is not None and self.job.failures.session_losses == 0 and self.adopt(digests):
                    return
                discard_foreign(self.ctx, self.store)
                answer = self.ask(digests)
        except ObjectExists as error:
            self.succeed_if_ours(self.wanted(), error)
            return
        match answer:
            case Session():
                self.open(answer, held=[])
            case Stored():
                self.succeed_if_ours(self.wanted(), None)
            case UploadInProgress():
                raise in_progress(self.job.key, "another upload to the key began while ours did")

    def ask(self, digests: Digests | None) -> Session | UploadInProgress | Stored:
        requested, limits = self.job.slice_size, self.store.limits
        slice_bytes = choose_slice_bytes(
            self.source.size_bytes, requested=requested, default=self.profile.slice_bytes,
            sizes=limits.slice_sizes, max_slices=limits.max_slices,
        )  # fmt: skip
        return self.store.init(intent_of(self.job, self.source.size_bytes), slice_bytes, digests, self.guard)

    def open(self, session: Session, held: list[int]) -> None:
        """Store the session, the file that it is of, the plan and the slices in one transaction.

        ``held``: slices that the store has already, and whose content its own list proves by the file's digest.
        """
        plan = Plan(self.source.size_bytes, session.slice_bytes)
        opened = OpenedSession(
            handle=session.handle,
            fingerprint=self.source.fingerprint,
            size_bytes=self.source.size_bytes,
            slice_bytes=session.slice_bytes,
            ordered=session.ordered,
            total=plan.total,
            held=held,
            bytes_done=plan.bytes_of(held),
        )
        self.ctx.write(lambda tx: transitions.open_session(tx, self.ctx.claim, opened))
        self.rt.notify_dispatcher()

    def adopt(self, digests: Digests) -> bool:
        """Go on with the unfinished upload if the store's own list names the file's digest; say whether it does.

        That init was given the digest says nothing of an upload that was there before: half of another file, begun
        without a digest, is answered in the same way.
        """
        try:
            listing = self.store.list_slices(self.job.key, None, self.guard)
        except SessionGone:
            return False
        if isinstance(listing, Stored):
            raise Unknown(f"the upload to {self.job.key!r} was completed by another client in this moment")
        size_bytes, limits = self.source.size_bytes, self.store.limits
        if listing.digest != digests.value or listing.size_bytes not in (None, size_bytes):
            return False
        held = [(each.offset_bytes, each.size_bytes) for each in listing.slices]
        plan = plan_of_unfinished(
            size_bytes, listing.slice_bytes, held, most_bytes=limits.max_slice_bytes, max_slices=limits.max_slices
        )
        if plan is None:
            return False
        self.open(Session(listing.handle, plan.slice_bytes, listing.ordered), plan.numbers(held))
        return True

    def take_up_again(self) -> None:
        """Go on with the job's own session: what its list has counts, what it lacks is sent again."""
        gone = SessionGone(f"the session of {self.job.key!r} is no longer the one at the store")
        try:
            listing = self.store.list_slices(self.job.key, self.job.session, self.guard)
        except SessionGone as error:
            self.succeed_if_ours(self.wanted(), error)
            return
        if isinstance(listing, Stored) or listing.handle != self.job.session:
            self.succeed_if_ours(self.wanted(), gone)
            return
        _, slice_bytes, _ = self.job.upload()
        plan = Plan(self.source.size_bytes, slice_bytes)
        numbers = plan.numbers((each.offset_bytes, each.size_bytes) for each in listing.slices)
        self.ctx.write(lambda tx: transitions.reconcile(tx, self.ctx.claim, numbers))
        self.rt.notify_dispatcher()
