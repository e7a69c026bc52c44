"""What the tasks of one worker process share: its identity, the database, the stores, and what it is working on."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import uuid4

from worker.config.celery_parts import threads
from worker.db.pool import UNAVAILABLE, Database
from worker.jobs import leases
from worker.jobs.places import check_tenant, store_of
from worker.jobs.statements import texts
from worker.sources.registry import open_source
from worker.tasks.checkpoint_batcher import Checkpoints
from worker.tasks.claim_leases import ClaimLeases
from worker.tasks.drivers import Drivers
from worker.tasks.guards import Guards
from worker.tasks.limiters import MIN_SLOTS
from worker.tasks.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.leases import Claim
    from worker.jobs.rows import Claimed
    from worker.sources.base import Source
    from worker.tasks.guard import ClaimGuard

T = TypeVar("T")
J_co = TypeVar("J_co", bound="Claimed", covariant=True)

WRITE_AGAIN_S = 0.25


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
            pool_size=(threads(settings) or MIN_SLOTS) + 3,
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
        self.guards = Guards(self.stopping, revoked)
        self.transfers = Transfers(threads(settings) or MIN_SLOTS, settings.timers.slow_slice_s)
        self.checkpoints = Checkpoints(self.db, self.worker, more=self.transfers.room.busy)
        self.drivers = Drivers()
        self.use_profiles()

    def use_profiles(self) -> None:
        """Make anew what follows from the profiles: at the start, and after a reload."""
        self.leases = ClaimLeases(self.settings.timers, self.settings.profiles.stores)

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
        profiles = self.settings.profiles  # taken once: a reload may replace them between the two
        check_tenant(profiles, job.tenant, job.store, job.key, job.source)
        return store_of(profiles, job.store, job.key, job.target)

    def source(self, job: Claimed) -> Source:
        """Open the job's source, as its fingerprint says if it has one.

        Raises:
            SourceError: it cannot be read as promised.
        """
        source, roots = job.source, self.settings.profiles.roots
        return open_source(source.kind, source.document, job.fingerprint, roots, self.name)

    def close(self) -> None:
        """Let go of the stores and the database."""
        self.drivers.close()
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
