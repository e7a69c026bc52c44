"""Group commit: jobs of requests that arrive at the same time share one statement and one commit, as checkpoints do."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy.exc
from starlette.concurrency import run_in_threadpool

from worker.db.pool import UNAVAILABLE
from worker.db.repetition import run_idempotent
from worker.jobs import submit
from worker.jobs.submit import Accepted, Submission
from worker.protocols.spec import BATCH_MAX_JOBS
from worker.telemetry.emit import emit, is_subscribed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.db.pool import Database
    from worker.errors import Refused
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.quota import Quota
    from worker.jobs.transitions import NewJob

WRITERS = 2
"""Statements under way at once: while one commits, the next batch fills."""


@dataclass(frozen=True, slots=True)
class _Request:
    jobs: Sequence[NewJob]
    outcomes: asyncio.Future[list[Accepted | Refused]]


class EnqueueBatcher:
    """Inserts the jobs of many requests together. Used from one event loop."""

    def __init__(self, database: Database, quota: Quota) -> None:
        self._database, self._quota = database, quota
        self._waiting: defaultdict[ApiKey, deque[_Request]] = defaultdict(deque)
        self._writers: set[asyncio.Task[None]] = set()

    async def submit(self, jobs: Sequence[NewJob], key: ApiKey) -> list[Accepted | Refused]:
        """Insert jobs; return after the commit, with the outcome of each, in order.

        Raises:
            psycopg.Error: the insert failed; if its response was lost twice, it is unknown whether it was committed.
        """
        request = _Request(jobs, asyncio.get_running_loop().create_future())
        self._waiting[key].append(request)
        if len(self._writers) < WRITERS:
            writer = asyncio.create_task(self._write())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await request.outcomes

    async def _write(self) -> None:
        while self._waiting:
            key, requests = self._next_batch()
            try:
                outcomes = await run_in_threadpool(self._insert, [job for each in requests for job in each.jobs], key)
            except Exception as error:  # noqa: BLE001 - each request raises it
                await self._handle_failure(requests, key, error)
            else:
                _set_outcomes(requests, outcomes)
                if self._quota.is_due(key.tenant):  # here, no request waits for it
                    await run_in_threadpool(self._recount, key.tenant)

    def _next_batch(self) -> tuple[ApiKey, list[_Request]]:
        """Remove the requests of the key that has waited longest, as many as fit into a batch."""
        key, waiting = next(iter(self._waiting.items()))
        requests, room = [waiting.popleft()], BATCH_MAX_JOBS
        room -= len(requests[0].jobs)
        while waiting and len(waiting[0].jobs) <= room:
            room -= len(waiting[0].jobs)
            requests.append(waiting.popleft())
        del self._waiting[key]
        if waiting:
            self._waiting[key] = waiting  # behind the other keys
        return key, requests

    async def _handle_failure(self, requests: list[_Request], key: ApiKey, error: Exception) -> None:
        """Raise the error in the requests; if one of several may have caused it, insert each by itself first."""
        if len(requests) == 1 or isinstance(error, UNAVAILABLE):
            for request in requests:
                if not request.outcomes.done():
                    request.outcomes.set_exception(error)
            return
        for request in requests:
            try:
                _set_outcomes([request], await run_in_threadpool(self._insert, request.jobs, key))
            except Exception as own:  # noqa: BLE001
                await self._handle_failure([request], key, own)

    def _insert(self, jobs: Sequence[NewJob], key: ApiKey) -> list[Accepted | Refused]:
        """Insert in one statement, which commits itself; if its response is lost, send it once more."""
        submission = Submission(jobs, key, self._quota)
        outcomes = run_idempotent(self._database, lambda tx: submit.submit(tx, submission))
        if is_subscribed("job.enqueued"):
            for job in outcomes:
                if isinstance(job, Accepted) and not job.replayed:
                    emit("job.enqueued", job_id=job.id, store=job.store, tenant=job.tenant)
        return outcomes

    def _recount(self, tenant: str) -> None:
        with suppress(psycopg.Error, sqlalchemy.exc.SQLAlchemyError), self._database.connection() as connection:
            self._quota.recount(connection, tenant)


def _set_outcomes(requests: list[_Request], outcomes: list[Accepted | Refused]) -> None:
    rest = iter(outcomes)
    for request in requests:
        own = [next(rest) for _ in request.jobs]
        if not request.outcomes.done():  # its client may have disconnected
            request.outcomes.set_result(own)
