"""Long polls: requests that wait for a job to end. One thread polls for all of them; no request holds a connection.

A tenant may have as many waiters as there are free places, so that the next tenant always finds one: one tenant gets
half of the places, two get a third each.
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
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from uuid import UUID

    from worker.db.pool import Connection, Database
    from worker.jobs.api_keys import ApiKey

MAX_WAITERS = 200
POLL_INTERVAL_S = 0.2
KEY_CHECK_INTERVAL_S = 2.0
"""How often the keys of the waiters are checked: all of them by one query."""
_log = get_logger(__name__)


class _Waiter(NamedTuple):
    job_id: UUID
    key: ApiKey


class Waiters:
    """Ends the wait of requests whose job has ended. Used from one event loop; a thread polls the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[asyncio.Future[bool], _Waiter] = {}
        self._of_tenant: Counter[str] = Counter()
        self._change = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Return the number of waiters."""
        return len(self._waiting)

    async def wait(self, job_id: UUID, key: ApiKey, timeout_s: float, disconnect: Awaitable[object]) -> None:
        """Return when the job has ended, the time is over, the service stops, or ``disconnect`` has happened.

        Raises:
            Unavailable: there are as many waiters as the process allows.
            Unauthenticated: the key was revoked meanwhile.
        """
        disconnected: asyncio.Future[object] = asyncio.ensure_future(disconnect)
        try:
            with self._place(_Waiter(job_id, key)) as end:
                both: set[asyncio.Future[Any]] = {end, disconnected}
                await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if end.done() and not end.result():
                    raise Unauthenticated("the key was revoked")
        finally:
            disconnected.cancel()

    @contextmanager
    def _place(self, waiter: _Waiter) -> Iterator[asyncio.Future[bool]]:
        """Hold a place; its future becomes true when the wait is over, and false when the key was revoked."""
        end = asyncio.get_running_loop().create_future()
        tenant = waiter.key.tenant
        with self._change:
            free = MAX_WAITERS - len(self._waiting)
            if self._of_tenant[tenant] >= free:
                holder = f"tenant {tenant!r} has" if self._of_tenant[tenant] else "other tenants have"
                raise Unavailable(f"{holder} as many requests waiting as it may have now", code="too_many_waiters")
            self._waiting[end] = waiter
            self._of_tenant[tenant] += 1
            if self._stopping:
                end.set_result(True)
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="waiters", daemon=True)
                self._thread.start()
            self._change.notify()
        try:
            yield end
        finally:
            with self._change:
                del self._waiting[end]
                self._of_tenant[tenant] -= 1
                self._of_tenant += Counter()  # drops tenants without waiters
            end.cancel()

    def stop(self) -> None:
        """End every wait; from now on no request waits."""
        with self._change:
            self._stopping = True
            self._end(self._waiting.keys())
            self._change.notify()

    def _poll(self) -> None:
        check_keys_at = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                jobs = {waiter.job_id for waiter in self._waiting.values()}
                keys = {waiter.key.id for waiter in self._waiting.values()}
            revoked_keys = set()
            if time.monotonic() >= check_keys_at:
                check_keys_at = time.monotonic() + KEY_CHECK_INTERVAL_S
                revoked_keys = self._query(not_good, keys)
            ended_jobs = self._query(ended, jobs)
            with self._change:
                self._end([end for end, waiter in self._waiting.items() if waiter.key.id in revoked_keys], good=False)
                self._end([end for end, waiter in self._waiting.items() if waiter.job_id in ended_jobs])
                self._change.wait_for(lambda: self._stopping, timeout=POLL_INTERVAL_S)

    def _query(self, query: Callable[[Connection, set[UUID]], set[UUID]], ids: set[UUID]) -> set[UUID]:
        try:
            return run_idempotent(self._database, lambda connection: query(connection, ids))
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:  # the next poll tries again
            _log.warning("waiters.database_unavailable", error=str(error))
            return set()

    @staticmethod
    def _end(ends: Iterable[asyncio.Future[bool]], *, good: bool = True) -> None:
        for end in ends:
            end.get_loop().call_soon_threadsafe(_set_result, end, good)


def _set_result(end: asyncio.Future[bool], good: bool) -> None:
    if not end.done():
        end.set_result(good)
