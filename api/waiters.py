"""Requests that wait for a job to end: one thread a process looks for all of them, none of them holds a connection."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy.exc

from api.problems import Unavailable
from worker.jobs.queries import ended
from worker.log import get_log
from worker.repetition import run_idempotent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator
    from uuid import UUID

    from worker.db import Database

MOST = 200
LOOK_EVERY_S = 0.2
_log = get_log(__name__)


class Waiters:
    """Wakes those who wait for jobs. Used from one event loop; the looking is done by a thread of its own."""

    def __init__(self, database: Database, *, most: int = MOST, look_every_s: float = LOOK_EVERY_S) -> None:
        """Begin nothing yet."""
        self._database = database
        self._most = most
        self._look_every_s = look_every_s
        self._waiting: dict[asyncio.Future[None], UUID] = {}
        self._change = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    async def wait(self, job_id: UUID, timeout_s: float, gone: Awaitable[object]) -> None:
        """Return when the job has ended, the time is over, the service stops, or whoever waited is ``gone``.

        Raises:
            Unavailable: as many wait already as may.
        """
        departure: asyncio.Future[object] = asyncio.ensure_future(gone)
        try:
            with self._place(job_id) as end:
                both: set[asyncio.Future[Any]] = {end, departure}
                await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            departure.cancel()

    @contextmanager
    def _place(self, job_id: UUID) -> Iterator[asyncio.Future[None]]:
        end = asyncio.get_running_loop().create_future()
        with self._change:
            if len(self._waiting) >= self._most:
                raise Unavailable(f"{self._most} requests wait already", code="too_many_waiters")
            self._waiting[end] = job_id
            if self._stopping:
                end.set_result(None)
            self._thread = self._thread or self._started()
            self._change.notify()
        try:
            yield end
        finally:
            with self._change:
                del self._waiting[end]
            end.cancel()

    def stop(self) -> None:
        """Let all who wait go with what there is; from then on nobody waits."""
        with self._change:
            self._stopping = True
            self._wake(self._waiting.keys())
            self._change.notify()

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._look, name="waiters", daemon=True)
        thread.start()
        return thread

    def _look(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                jobs = set(self._waiting.values())
            over = self._ended(jobs)
            with self._change:
                self._wake([end for end, job_id in self._waiting.items() if job_id in over])
                self._change.wait_for(lambda: self._stopping, timeout=self._look_every_s)

    def _ended(self, jobs: set[UUID]) -> set[UUID]:
        try:
            return run_idempotent(self._database, lambda connection: ended(connection, jobs))
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:  # the next look may find it back
            _log.warning("waiters.database_unavailable", error=str(error))
            return set()

    @staticmethod
    def _wake(ends: Iterable[asyncio.Future[None]]) -> None:
        for end in ends:
            end.get_loop().call_soon_threadsafe(_finish, end)


def _finish(end: asyncio.Future[None]) -> None:
    if not end.done():
        end.set_result(None)
