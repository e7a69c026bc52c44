"""The canary of a drill: a whole worker that kills itself in the middle of the first slice of the drill's own job.

Only `sliceway drill` runs it, as `celery -A worker.drill.victim worker`. Nothing of it is in an ordinary worker.
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
from worker.tasks.guard import ClaimGuard

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.stores.base import Handle, SliceAck, Stored, StoreDriver

PREFIX_VARIABLE = "SLICEWAYDRILL_PREFIX"
"""What the keys of the drill's own jobs begin with."""
NOTES_VARIABLE = "SLICEWAYDRILL_NOTES"
"""The file in which the canary says, a line of JSON each, that it is ready and what it died of."""
_BEFORE_CONTENT = 2
"""How often a driver asks its guard before the first bytes of a slice: before the request, and before its head."""


class Fuse:
    """The guard of the slice in which the canary dies: lets half of its bytes pass."""

    def __init__(self, guard: ClaimGuard, size_bytes: int) -> None:
        self._guard, self._size_bytes = guard, size_bytes
        self._asked = 0
        self._half = max(1, -(-size_bytes // PIECE_BYTES) // 2)

    def check(self) -> None:
        """As the guard; dies when half of the pieces are on their way."""
        self._guard.check()
        self._asked += 1
        if self._asked > _BEFORE_CONTENT + self._half:
            self.blow(min(self._half * PIECE_BYTES, self._size_bytes))

    def remaining_s(self) -> float:
        """As the guard."""
        return self._guard.remaining_s()

    def acknowledged(self, size_bytes: int) -> None:
        """As the guard."""
        self._guard.acknowledged(size_bytes)

    def blow(self, sent_bytes: int) -> None:
        """Say what was being done, and kill this process."""
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


class Doomed:
    """A store's driver, with which a slice of the drill's job ends the process."""

    def __init__(self, store: StoreDriver) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send the slice of any other job; a failure of the store is no crash, so one of ours then comes back too."""
        if not key.startswith(os.environ[PREFIX_VARIABLE]):
            return self._store.put_slice(key, handle, offset_bytes, body, guard)
        assert isinstance(guard, ClaimGuard)
        fuse = Fuse(guard, body.nbytes)
        put = self._store.put_slice(key, handle, offset_bytes, body, fuse)
        fuse.blow(body.nbytes)  # a driver with larger pieces: all is sent, and not yet recorded
        return put


class CanaryRuntime(Runtime):
    """What its tasks share: as everywhere, but for the drivers."""

    def store(self, profile: StoreProfile) -> StoreDriver:
        """Return the driver in which the canary dies."""
        return cast("StoreDriver", Doomed(super().store(profile)))


class CanaryEngine(Engine):
    """The engine without a dispatcher: were it the leader that dies, the others would have to wait for a new one."""

    runtime_type: ClassVar[type[Runtime]] = CanaryRuntime

    def start(self, parent: Any) -> None:
        """Start as every worker, and leave the dispatch to the others."""
        super().start(parent)
        self.dispatcher.stop()


def _on_ready(**_: Any) -> None:
    note(ready=True)


def note(**what: object) -> None:
    """Write a line for the drill; in the kernel's hands when this returns, so that it outlives us."""
    file = os.open(os.environ[NOTES_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, json.dumps(what).encode() + b"\n")
    os.close(file)


signals.worker_ready.connect(_on_ready)
app.steps["worker"].discard(Engine)
app.steps["worker"].add(CanaryEngine)
