"""Begin an upload: open the source, take its fingerprint (and digests, if asked), ask the store for a session."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worker.errors import Interrupted, ObjectExists, Permanent, SessionGone, Stop, StoreError, Unknown
from worker.jobs import transitions
from worker.jobs.plan import Plan, choose_slice_bytes, goes_whole, plan_of_unfinished
from worker.jobs.proof import NotProven
from worker.jobs.states import Event, JobState
from worker.stores.base import AbortSkipped, Digests, Listing, Session, Stored, UploadInProgress
from worker.tasks.hashing import hash_source
from worker.tasks.opening import open_for_init
from worker.tasks.settle import store_answered
from worker.tasks.verify import (
    Verification,
    intent_of,
    mark_of_any_epoch,
    result_of,
    unverified,
    verify_object,
    wanted_of,
    without_effect,
)

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.jobs.leases import Claim
    from worker.sources.base import Source
    from worker.stores.base import StoreDriver
    from worker.tasks.context import Runtime
    from worker.tasks.guard import ClaimGuard

Row = dict[str, Any]


def run_init(rt: Runtime, claim: Claim, row: Row, guard: ClaimGuard) -> None:
    """Begin the upload, or take it up again where it stands.

    Raises:
        SlicewayError: as the source, the store and the guard have it.
    """
    profile = rt.profile_for_upload(row)
    store = rt.store(profile)
    with open_for_init(rt, claim, row, guard) as source:
        known = {key: row[key] for key in ("hashing", "digests", "existed")}
        known |= {"fingerprint": source.fingerprint, "size_bytes": source.size_bytes}
        _Init(rt, claim, row | known, guard, store, source, profile).run()
    store_answered(rt, row, guard)


@dataclasses.dataclass
class _Init:
    """The one init that is running: what it knows is stored with its session, and where others may have to go on."""

    rt: Runtime
    claim: Claim
    row: Row
    guard: ClaimGuard
    store: StoreDriver
    source: Source
    profile: StoreProfile

    def run(self) -> None:
        if self.row["session"] is not None:
            self.save()
            self.take_up_again()
            return
        try:
            requested, size_bytes = self.row["slice_size"], self.source.size_bytes
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
        lease = timedelta(seconds=max(at_least_s, self.rt.timers.init_limit_s) + self.rt.timers.lease_slack_s)
        return self.rt.write(lambda tx: transitions.save_progress(tx, self.claim, self.row, lease), self.guard)

    def wanted(self) -> Verification:
        return wanted_of(self.row, self.profile)

    def digests(self) -> Digests | None:
        if self.row["verify"] != "file":
            return None
        self.save()  # it takes long: its size is to be seen meanwhile, and whoever goes on must hash the same file
        found = hash_source(self.store, self.source, self.row, self.guard, self.save)
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
                self.discard_foreign()
                stored = self.send_once(body)
        except (ObjectExists, Unknown) as error:
            self.succeed_if_ours(wanted, error)
        else:
            self.succeed_if_ours(wanted, None, in_one=stored.size_bytes is not None)

    def send_once(self, body: memoryview) -> Stored:
        """Send it, with as much time from now on as a slice of its size has: the wait for the slot took some.

        Its answer may take all of that, and what became of it is looked up afterwards.
        """
        timers = self.rt.timers
        limit_s = timers.deadline_s + body.nbytes / self.profile.low_speed_bytes_per_s
        with self.rt.sending(self.guard, self.row["store"], body.nbytes):
            if self.guard.remaining_s() < limit_s + timers.deadline_s:
                self.save(limit_s + timers.deadline_s)
                self.guard.extend(limit_s + timers.deadline_s)
            with self.guard.within(limit_s):
                return self.store.put_whole(intent_of(self.row), body, self.guard)

    def remember_what_was_there(self) -> None:
        """Where an object may be replaced, record whether there was one: it must not count as ours later."""
        if self.row["existed"] is None and self.row["overwrite"]:
            self.row["existed"] = self.store.head(self.row["key"], self.guard) is not None
            self.save()

    def succeed_if_ours(self, wanted: Verification, error: StoreError | None, *, in_one: bool = False) -> None:
        """Succeed if the object at the key is proven to be ours or equal, else let the error stand.

        ``error`` None: the store has acknowledged it; ``in_one``: as an upload in one request. `ObjectExists` proves
        nothing; others may have had their effect.
        """
        stored, proof = verify_object(
            self.store,
            self.row["key"],
            wanted,
            self.guard,
            acknowledged=error is None,
            in_one=in_one,
            session_gone=error is not None and not isinstance(error, ObjectExists),
            existed=self.row["existed"],
            sent=self.row["session"] is None and not isinstance(error, ObjectExists),
        )
        if proof is NotProven.NO_DIGEST:
            raise unverified(self.row) from error
        if isinstance(proof, NotProven):
            if stored is None and isinstance(error, Unknown):
                raise without_effect(error) from error
            raise error or Unknown(f"the store says that {self.row['key']!r} is stored, but shows no such object")
        self.rt.write(lambda tx: transitions.succeed(tx, self.claim, result_of(self.row, proof, stored)), self.guard)

    def begin(self, digests: Digests | None) -> None:
        self.remember_what_was_there()
        try:
            answer = self.ask(digests)
            if isinstance(answer, UploadInProgress):
                # after a lost session, what is there may be just what was lost: begin with nothing
                if digests is not None and self.row["session_losses"] == 0 and self.adopt(digests):
                    return
                self.discard_foreign()
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
                raise self.in_progress("another upload to the key began while ours did")

    def ask(self, digests: Digests | None) -> Session | UploadInProgress | Stored:
        requested, limits = self.row["slice_size"], self.store.limits
        slice_bytes = choose_slice_bytes(
            self.source.size_bytes, requested=requested, default=self.profile.slice_bytes,
            sizes=limits.slice_sizes, max_slices=limits.max_slices,
        )  # fmt: skip
        return self.store.init(intent_of(self.row), slice_bytes, digests, self.guard)

    def open(self, session: Session, held: list[int]) -> None:
        """Store the session, the file that it is of, the plan and the slices in one transaction.

        ``held``: slices that the store has already, and whose content its own list proves by the file's digest.
        """
        plan = Plan(self.source.size_bytes, session.slice_bytes)
        params = {
            "fingerprint": self.source.fingerprint,
            "size_bytes": self.source.size_bytes,
            "slice_bytes": session.slice_bytes,
            "ordered": session.ordered,
            "total": plan.total,
            "held": held,
            "bytes_done": plan.bytes_of(held),
        }
        cause: Row = {"slice_bytes": session.slice_bytes, "slices": plan.total, "held": len(held)}
        cause |= {"held_by": "digest"} if held else {}  # 0.1 held them by their size, and did not say so
        self.rt.write(lambda tx: transitions.open_session(tx, self.claim, session.handle, params, cause), self.guard)
        self.rt.notify_dispatcher()

    def adopt(self, digests: Digests) -> bool:
        """Go on with the unfinished upload if the store's own list names the file's digest; say whether it does.

        That init was given the digest says nothing of an upload that was there before: half of another file, begun
        without a digest, is answered in the same way.
        """
        try:
            listing = self.store.list_slices(self.row["key"], None, self.guard)
        except SessionGone:
            return False
        if isinstance(listing, Stored):
            raise Unknown(f"the upload to {self.row['key']!r} was completed by another client in this moment")
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

    def discard_foreign(self) -> None:
        """Discard an unfinished upload that is not ours, if it is abandoned.

        Raises:
            Permanent: `upload_in_progress`: another client sends to it, or an object at the key could be deleted too.
        """
        key = self.row["key"]
        if self.store.head(key, self.guard) is not None:
            raise self.in_progress("an unfinished upload and an object are at the key")
        before = self.held()
        if before is None:
            return
        self.guard.wait(self.rt.timers.foreign_upload_recheck_s)
        after = self.held()
        if after is not None:
            if after != before:
                raise self.in_progress("another client is uploading to the key")
            # it may be the job's own of an earlier epoch, which the store had reported gone
            self.rt.revalidate_claim(self.guard)
            outcome = self.store.abort(key, None, self.guard, mark=mark_of_any_epoch(self.row))
            if isinstance(outcome, AbortSkipped):
                raise self.in_progress(outcome.reason)
        seen = {"slices": len(before.slices)}
        self.rt.write(lambda tx: transitions.note(tx, self.claim, Event.FOREIGN_SESSION_DISCARDED, seen), self.guard)

    def held(self) -> Listing | None:
        try:
            listing = self.store.list_slices(self.row["key"], None, self.guard)
        except SessionGone:
            return None
        if isinstance(listing, Stored):
            raise self.in_progress("another upload to the key was completed in this moment")
        return listing

    def in_progress(self, why: str) -> Permanent:
        return Permanent(
            f"{why}: {self.row['key']!r}",
            code="upload_in_progress",
            advice="Wait until the other upload has ended, or remove it at the store; then retry.",
        )

    def take_up_again(self) -> None:
        """Go on with the job's own session: what its list has counts, what it lacks is sent again."""
        gone = SessionGone(f"the session of {self.row['key']!r} is no longer the one at the store")
        try:
            listing = self.store.list_slices(self.row["key"], self.row["session"], self.guard)
        except SessionGone as error:
            self.succeed_if_ours(self.wanted(), error)
            return
        if isinstance(listing, Stored) or listing.handle != self.row["session"]:
            self.succeed_if_ours(self.wanted(), gone)
            return
        plan = Plan(self.source.size_bytes, self.row["slice_bytes"])
        numbers = plan.numbers((each.offset_bytes, each.size_bytes) for each in listing.slices)
        self.rt.write(lambda tx: transitions.reconcile(tx, self.claim, numbers), self.guard)
        self.rt.notify_dispatcher()
