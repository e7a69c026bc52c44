"""What the tasks of one worker process share: its identity, the database, the stores, and what it is working on."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import uuid4

from worker.config.timeouts import Timers
from worker.db.pool import UNAVAILABLE, Database
from worker.errors import Interrupted, StaleClaim, Stop
from worker.jobs import leases
from worker.jobs.places import check_tenant, store_of
from worker.jobs.statements import texts
from worker.sources.registry import open_source
from worker.stores.registry import open_store
from worker.tasks.checkpoint_batcher import Checkpoints
from worker.tasks.guard import ClaimGuard, boot_clock_s
from worker.tasks.limiters import MIN_SLOTS, ResizableSemaphore, SharedExclusiveLock
from worker.tasks.link_meter import LinkMeter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.leases import Claim
    from worker.jobs.rows import Claimed
    from worker.sources.base import Source
    from worker.stores.base import StoreDriver

Limit = Callable[[Timers, "StoreProfile | None"], float]
"""The time limit of a kind of task; a store's, or the least one: a claim tells the store."""
T = TypeVar("T")
J_co = TypeVar("J_co", bound="Claimed", covariant=True)

WRITE_AGAIN_S = 0.25
DRAIN_POLL_S = 0.02


class Runtime:
    """One worker process and boot. Safe to be used by its task threads."""

    def __init__(self, settings: Settings, revoked: Callable[[str], bool]) -> None:
        """Make the process's identity; open nothing yet.

        Args:
            settings: of the installation.
            revoked: returns whether an operator revoked the task with this Celery id.
        """
        self.settings = settings
        self.timers = settings.timers
        self.worker = uuid4()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.db = Database(
            settings.database_url,
            pool_size=(settings.worker_threads or MIN_SLOTS) + 3,
            pooled=settings.database_direct_url is not None,
            plan_once=True,
            application="sliceway worker",
            keep=texts(),
        )
        self.stopping = threading.Event()
        self.notify_dispatcher: Callable[[], None] = _no_op
        """Tells the dispatcher that something new is due."""
        self.slot_freed: Callable[[], None] = _no_op
        """Tells it that a slot is free; heard if no message fills the slot by itself."""
        self.links = LinkMeter()
        self.room = ResizableSemaphore(settings.worker_threads or MIN_SLOTS)
        self.checkpoints = Checkpoints(self.db, self.worker, more=self.room.busy)
        self.taken = 0
        self.sent: list[float] = []
        self.claimed_through: datetime | None = None
        self._gate = SharedExclusiveLock()
        self._revoked = revoked
        self._guards: dict[int, ClaimGuard] = {}
        self._stores: dict[str, StoreDriver] = {}
        self._leases: dict[Limit, dict[str, float]] = {}
        self._opening = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def guard(self, claim: Claim, task_id: str, limit_s: float, *, alone: bool = False) -> Iterator[ClaimGuard]:
        """Stand guard over work on a claim that is about to be made, for ``limit_s`` seconds from now."""
        with self._gate.enter(alone=alone):
            if self.stopping.is_set():
                raise Interrupted(Stop.SHUTDOWN)
            if any(other.claim == claim for other in self.guards()):
                raise StaleClaim(f"job {claim.job_id}: another copy of the message is being worked on here")
            guard = ClaimGuard(
                claim,
                deadline_s=boot_clock_s() + limit_s,
                stopping=self.stopping,
                revoked=lambda: self._revoked(task_id),
            )
            self._guards[id(guard)] = guard
            self.taken += 1  # by several threads at once: that it changes is what counts
            try:
                yield guard
            finally:
                del self._guards[id(guard)]

    def write(self, statement: Callable[[Connection], T], guard: ClaimGuard) -> T:
        """Run a write, and run it again while the database is away, until the claim's deadline or a stop.

        A write whose answer was lost finds its guard gone the second time and raises `StaleClaim`: it is done, or void.

        Raises:
            psycopg.Error: the database stayed away; the claim ends with its lease or with this worker.
        """
        while True:
            try:
                with self.db.connection() as tx:
                    return statement(tx)
            except UNAVAILABLE:
                if guard.remaining_s() == 0.0 or self.stopping.wait(WRITE_AGAIN_S):
                    raise

    def revalidate_claim(self, guard: ClaimGuard) -> None:
        """Read the claim once more, right before a request to the store that nothing can undo: a finish or a delete.

        Raises:
            Interrupted: it is no longer to go on; or as the guard's check.
            psycopg.Error: the database stayed away, so that the outcome is unknown.
        """
        claims = [(guard.claim, guard.aborts)]
        guard.lost = bool(self.write(lambda tx: leases.lost_claims(tx, claims, self.worker), guard)) or guard.lost
        guard.check()

    @contextmanager
    def sending(self, guard: ClaimGuard, store: str, size_bytes: int) -> Iterator[None]:
        """Wait for a slot for a request that carries bytes of a file, and measure it."""
        slow = self.links.is_slow(store, self.timers.slow_slice_s)
        with self.room.enter(guard, slow=slow), self.links.sending(store, size_bytes):
            guard.begin_sending(size_bytes)
            began_s = time.monotonic()
            yield
            self.sent.append(time.monotonic() - began_s)

    def guards(self) -> list[ClaimGuard]:
        """Return the guards of what is being worked on now."""
        return list(self._guards.values())

    def drained(self, seconds: float) -> bool:
        """Wait until nothing is being worked on; says whether that came true in time."""
        until_s = boot_clock_s() + seconds
        while self._guards and boot_clock_s() < until_s:
            time.sleep(DRAIN_POLL_S)
        return not self._guards

    def leases(self, limit: Limit) -> tuple[timedelta, Mapping[str, float]]:
        """Return the lease of a step that has this limit, and the longer ones: seconds by store."""
        least_s, slack_s = limit(self.timers, None), self.timers.lease_slack_s
        if limit not in self._leases:
            limits = {name: limit(self.timers, profile) for name, profile in self.settings.profiles.stores.items()}
            self._leases[limit] = {name: own_s + slack_s for name, own_s in limits.items() if own_s > least_s}
        return timedelta(seconds=least_s + slack_s), self._leases[limit]

    def note_claimed(self, dispatched_at: datetime) -> None:
        """Remember how late the messages were published that have been claimed."""
        if self.claimed_through is None or dispatched_at > self.claimed_through:
            self.claimed_through = dispatched_at

    def profile(self, job: Claimed) -> StoreProfile:
        """Return the profile of the job's store.

        Raises:
            StoreUnusable: `store_changed`: the profile is gone, or leads to another place than when the job came.
        """
        return store_of(self.settings.profiles, job.store, job.key, job.target)

    def profile_for_upload(self, job: Claimed) -> StoreProfile:
        """Return the same, if the job's tenant may use it; a clean-up needs no permission.

        Raises:
            StoreUnusable: `store_changed`, or `tenant_not_allowed`.
        """
        check_tenant(self.settings.profiles, job.tenant, job.store, job.key, job.source)
        return self.profile(job)

    def store(self, profile: StoreProfile) -> StoreDriver:
        """Return the process's driver for a store, with its pooled connections."""
        with self._opening:
            if profile.name not in self._stores:
                self._stores[profile.name] = open_store(profile)
            return self._stores[profile.name]

    def source(self, job: Claimed) -> Source:
        """Open the job's source, as its fingerprint says if it has one.

        Raises:
            SourceError: it cannot be read as promised.
        """
        source, roots = job.source, self.settings.profiles.roots
        return open_source(source.kind, source.document, job.fingerprint, roots, self.name)

    def buffer(self, size_bytes: int) -> memoryview:
        """Return this thread's buffer, so many bytes of it; it is used again for the thread's next slice."""
        kept: bytearray | None = getattr(self._local, "buffer", None)
        if kept is None or len(kept) < size_bytes:
            kept = self._local.buffer = bytearray(size_bytes)
        return memoryview(kept)[:size_bytes]

    def close(self) -> None:
        """Let go of the stores and the database."""
        for store in self._stores.values():
            store.close()
        self.db.close()


@dataclass(frozen=True, slots=True)
class TaskContext(Generic[J_co]):
    """One claim at work: all that the functions of a task hand on.

    Attributes:
        rt: the process.
        claim: the claim that was granted.
        job: the row that it returned: of a job, or of a slice with its job's columns.
        guard: asked between requests whether the work may go on.
    """

    rt: Runtime
    claim: Claim
    job: J_co
    guard: ClaimGuard

    def write(self, statement: Callable[[Connection], T]) -> T:
        """Run a write under the claim's guard, see `Runtime.write`."""
        return self.rt.write(statement, self.guard)


def _no_op() -> None:
    """Do nothing: outside a worker process there is no dispatcher to notify."""
