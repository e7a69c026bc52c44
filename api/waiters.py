"""Requests that wait for a job to end: one thread a process looks for all of them, none of them holds a connection.

A tenant has at most as many places as are free, so that there is always one for the next tenant: alone it has half of
them, two have a third each.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import sqlalchemy.exc

from api.problems import Unauthenticated, Unavailable
from worker.db.repetition import run_idempotent
from worker.jobs.api_keys import not_good
from worker.jobs.queries import ended
from worker.telemetry.log import get_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from uuid import UUID

    from worker.db.pool import Database, Tx
    from worker.jobs.api_keys import ApiKey

MOST = 200
POLL_INTERVAL_S = 0.2
KEYS_EVERY_S = 2.0
"""How often the keys of those who wait are looked up: all of them by one query."""
_log = get_log(__name__)


class _Waiter(NamedTuple):
    job_id: UUID
    key: ApiKey


class Waiters:
    """Wakes those who wait for jobs. Used from one event loop; the looking is done by a thread of its own."""

    def __init__(
        self,
        database: Database,
        *,
        most: int = MOST,
        look_every_s: float = POLL_INTERVAL_S,
        keys_every_s: float = KEYS_EVERY_S,
    ) -> None:
        """Begin nothing yet."""
        self._database = database
        self._most = most
        self._look_every_s = look_every_s
        self._keys_every_s = keys_every_s
        self._waiting: dict[asyncio.Future[bool], _Waiter] = {}
        self._of_tenant: Counter[str] = Counter()
        self._change = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    async def wait(self, job_id: UUID, key: ApiKey, timeout_s: float, gone: Awaitable[object]) -> None:
        """Return when the job has ended, the time is over, the service stops, or whoever waited is ``gone``.

        Raises:
            Unavailable: as many wait already as may.
            Unauthenticated: the key was revoked meanwhile.
        """
        departure: asyncio.Future[object] = asyncio.ensure_future(gone)
        try:
            with self._place(_Waiter(job_id, key)) as end:
                both: set[asyncio.Future[Any]] = {end, departure}
                await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if end.done() and not end.result():
                    raise Unauthenticated("the key was revoked")
        finally:
            departure.cancel()

    @contextmanager
    def _place(self, waiter: _Waiter) -> Iterator[asyncio.Future[bool]]:
        """Have a place, with a future that becomes true when the wait is over, and false when its key is not good."""
        end = asyncio.get_running_loop().create_future()
        tenant = waiter.key.tenant
        with self._change:
            free = self._most - len(self._waiting)
            if self._of_tenant[tenant] >= free:
                who = f"tenant {tenant!r} has" if self._of_tenant[tenant] else "other tenants have"
                raise Unavailable(f"{who} as many requests waiting as it may have now", code="too_many_waiters")
            self._waiting[end] = waiter
            self._of_tenant[tenant] += 1
            if self._stopping:
                end.set_result(True)
            self._thread = self._thread or self._started()
            self._change.notify()
        try:
            yield end
        finally:
            with self._change:
                del self._waiting[end]
                self._of_tenant[tenant] -= 1
                self._of_tenant += Counter()  # forgets those without any
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
        keys_at = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                jobs = {waiter.job_id for waiter in self._waiting.values()}
                keys = {waiter.key.id for waiter in self._waiting.values()}
            refused = set()
            if time.monotonic() >= keys_at:
                keys_at = time.monotonic() + self._keys_every_s
                refused = self._ask(not_good, keys)
            over = self._ask(ended, jobs)
            with self._change:
                self._wake([end for end, waiter in self._waiting.items() if waiter.key.id in refused], good=False)
                self._wake([end for end, waiter in self._waiting.items() if waiter.job_id in over])
                self._change.wait_for(lambda: self._stopping, timeout=self._look_every_s)

    def _ask(self, question: Callable[[Tx, set[UUID]], set[UUID]], ids: set[UUID]) -> set[UUID]:
        try:
            return run_idempotent(self._database, lambda connection: question(connection, ids))
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:  # the next look may find it back
            _log.warning("waiters.database_unavailable", error=str(error))
            return set()

    @staticmethod
    def _wake(ends: Iterable[asyncio.Future[bool]], *, good: bool = True) -> None:
        for end in ends:
            end.get_loop().call_soon_threadsafe(_finish, end, good)


def _finish(end: asyncio.Future[bool], good: bool) -> None:
    if not end.done():
        end.set_result(good)
