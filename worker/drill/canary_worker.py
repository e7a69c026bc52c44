"""The program of the canary: a whole worker that kills itself in the middle of the first slice of the drill's job.

Only `sliceway drill` runs it, as `celery -A worker.drill.canary_worker worker`. An ordinary worker imports none of it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from celery import signals

from worker.celery import app
from worker.runtime.bootsteps import Engine
from worker.stores.cos_json.form import PIECE_BYTES
from worker.tasks.context import Runtime
from worker.tasks.drivers import Drivers
from worker.tasks.guard import ClaimGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings
    from worker.http.deadline import Guard
    from worker.stores.base import Handle, SliceAck, Stored, StoreDriver

PREFIX_VARIABLE = "SLICEWAYDRILL_PREFIX"
"""Prefix of the keys of the drill's own jobs."""
NOTES_VARIABLE = "SLICEWAYDRILL_NOTES"
"""File of the canary's notes, a line of JSON each: that it is ready, and the claim that it dies with."""
_BEFORE_CONTENT = 2
"""How often a driver checks its guard before the first bytes of a slice: before the request, and before its head."""


class CrashingGuard:
    """The guard of the slice in which the canary dies. It kills the process after half of the slice's pieces."""

    def __init__(self, guard: ClaimGuard, size_bytes: int) -> None:
        self._guard, self._size_bytes = guard, size_bytes
        self._checks = 0
        self._half = max(1, -(-size_bytes // PIECE_BYTES) // 2)

    def check(self) -> None:
        """Check the guard; kill the process when half of the pieces are on their way."""
        self._guard.check()
        self._checks += 1
        if self._checks > _BEFORE_CONTENT + self._half:
            self.crash(min(self._half * PIECE_BYTES, self._size_bytes))

    def remaining_s(self) -> float:
        """Return the guard's remaining seconds."""
        return self._guard.remaining_s()

    def acknowledged(self, size_bytes: int) -> None:
        """Report acknowledged bytes to the guard."""
        self._guard.acknowledged(size_bytes)

    def crash(self, sent_bytes: int) -> None:
        """Note the claim, and kill this process."""
        claim = self._guard.claim
        note(
            died=str(claim.worker),
            job=str(claim.job_id),
            number=claim.number,
            token=claim.token,
            sent_bytes=sent_bytes,
            size_bytes=self._size_bytes,
            at_s=time.monotonic(),
        )
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingDriver:
    """A store's driver that kills the process in a slice of the drill's job."""

    def __init__(self, store: StoreDriver) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send the slice; die in it if it is the drill's. A failure of the store is raised as in any worker."""
        if not key.startswith(os.environ[PREFIX_VARIABLE]):
            return self._store.put_slice(key, handle, offset_bytes, body, guard)
        assert isinstance(guard, ClaimGuard)
        crashing_guard = CrashingGuard(guard, body.nbytes)
        put = self._store.put_slice(key, handle, offset_bytes, body, crashing_guard)
        crashing_guard.crash(body.nbytes)  # a driver with larger pieces has sent all, and nothing is recorded yet
        return put


class CrashingDrivers(Drivers):
    """The canary's drivers: those of any worker, which kill the process in the drill's slice."""

    def open(self, profile: StoreProfile) -> StoreDriver:
        """Make the driver of a store."""
        return cast("StoreDriver", CrashingDriver(super().open(profile)))


class CanaryRuntime(Runtime):
    """The runtime of the canary's tasks: that of any worker, with other drivers."""

    def __init__(self, settings: Settings, revoked: Callable[[str], bool]) -> None:
        """Make it like any other."""
        super().__init__(settings, revoked)
        self.drivers = CrashingDrivers()


class CanaryEngine(Engine):
    """The engine without a leader. If a leader died, the drill would also measure the election of a new one."""

    runtime_type: ClassVar[type[Runtime]] = CanaryRuntime

    def start(self, parent: Any) -> None:
        """Start like every worker, then stop the leader."""
        super().start(parent)
        self.leader.stop()


def _on_ready(**_: Any) -> None:
    note(ready=True)


def note(**what: object) -> None:
    """Write a line for the drill. The kernel has it when this returns, so that it survives the SIGKILL."""
    file = os.open(os.environ[NOTES_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, json.dumps(what).encode() + b"\n")
    os.close(file)


signals.worker_ready.connect(_on_ready)
app.steps["worker"].discard(Engine)
app.steps["worker"].add(CanaryEngine)
