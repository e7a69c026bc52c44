"""What the parts of an init share: the claim at work, the source and the store, and what the init has learned."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.errors import Interrupted, ObjectExists, Stop, Unknown
from worker.jobs import transitions
from worker.jobs.proof import NotProven
from worker.jobs.states import JobState
from worker.tasks.hashing import hash_source
from worker.tasks.verify import Verification, result_of, unverified, verify_object, wanted_of, without_effect
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.errors import StoreError
    from worker.jobs.rows import ClaimedJob, InitProgress
    from worker.sources.base import Source
    from worker.stores.base import Digests, StoreDriver
    from worker.tasks.context import Runtime, TaskContext
    from worker.tasks.guard import ClaimGuard


@dataclasses.dataclass
class InitWork:
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

    @property
    def job(self) -> ClaimedJob:
        """The job's row, as the claim returned it."""
        return self.ctx.job

    @property
    def rt(self) -> Runtime:
        """The process."""
        return self.ctx.rt

    @property
    def guard(self) -> ClaimGuard:
        """The claim's."""
        return self.ctx.guard

    def save(self, at_least_s: float = 0.0) -> None:
        """Store what is known, so that another worker can go on from it; extend the lease by a whole step, or more.

        Raises:
            Interrupted: the job was cancelled.
        """
        if self.write_down(at_least_s) is JobState.CANCELLING:
            raise Interrupted(Stop.CANCELLED)

    def write_down(self, at_least_s: float = 0.0) -> JobState:
        """Store the same, and return the state of the job; the lease is that of `save`."""
        timers = self.rt.timers
        lease = timedelta(seconds=max(at_least_s, timers.init_limit_s(self.profile)) + timers.lease_slack_s)
        return self.ctx.write(lambda tx: transitions.save_progress(tx, self.ctx.claim, self.progress, lease))

    def learn(self, progress: InitProgress) -> None:
        """Take what was learned, and store it."""
        self.progress = progress
        self.save()

    def wanted(self) -> Verification:
        """Return what proves that an object is this file."""
        return wanted_of(self.job, self.profile, self.progress.size_bytes, self.progress.digests)

    def digests(self) -> Digests | None:
        """Return the digests of the file if the job asks for proof by them; hash it, or go on with that."""
        if self.job.verify != "file":
            return None
        self.save()  # hashing takes long: the API reports the size meanwhile, and the next worker hashes the same file
        found = hash_source(self.store, self.source, self.progress, self.guard, self.learn)
        if self.source.size_bytes:
            self.source.verify_unchanged()
        return found

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
        emit("job.succeeded", job_id=self.job.id, store=self.job.store, tenant=self.job.tenant)
