"""Checkpoints of one process that complete together share one statement and one commit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from worker.errors import StaleClaim
from worker.jobs import transitions

if TYPE_CHECKING:
    from uuid import UUID

    from worker.db import Database
    from worker.jobs.leases import Acknowledged


class _Entry:
    __slots__ = ("done", "error", "ready", "row")

    def __init__(self, done: Acknowledged) -> None:
        self.done = done
        self.row: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.ready = False


class Checkpoints:
    """Commits in groups: who comes while a commit is on its way shares the next one."""

    def __init__(self, db: Database, worker: UUID) -> None:
        self._db, self._worker = db, worker
        self._waiting: list[_Entry] = []
        self._joining = threading.Lock()
        self._commit = threading.Lock()

    def write(self, done: Acknowledged) -> dict[str, Any]:
        """Record the slice as done; returns its job's `state` and `slices_left`, as far as this commit changed them.

        Raises:
            StaleClaim: the claim is no longer held; nothing was changed for it.
            psycopg.Error: the database did not answer; may be written again.
        """
        entry = _Entry(done)
        with self._joining:
            self._waiting.append(entry)
        with self._commit:
            if not entry.ready:
                self._write_all()
        if entry.error is not None:
            raise entry.error
        if entry.row is None:
            claim = done.claim
            raise StaleClaim(
                f"job {claim.job_id} slice {claim.number}: token {claim.token} is no longer held (checkpoint)"
            )
        return entry.row

    def _write_all(self) -> None:
        with self._joining:
            batch, self._waiting = self._waiting, []
        try:
            with self._db.connection() as tx:
                rows = transitions.checkpoint(tx, [entry.done for entry in batch], self._worker)
        except Exception as error:  # noqa: BLE001 - every waiting thread is told, and decides for itself
            for entry in batch:
                entry.error = error
        else:
            for entry in batch:
                claim = entry.done.claim
                entry.row = rows.get((claim.job_id, claim.number if claim.number is not None else -1, claim.token))
        for entry in batch:
            entry.ready = True
