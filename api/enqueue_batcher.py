"""Jobs that come in at the same time share one statement and one commit, as checkpoints do."""

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
from worker.jobs.submit import Submission
from worker.protocols.spec import BATCH_MAX_JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.db.pool import Database
    from worker.errors import Refused
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.quota import Quota
    from worker.jobs.submit import Accepted
    from worker.jobs.transitions import NewJob

WRITERS = 2
"""Statements on their way at once: while one commits, the next is filled."""


@dataclass(frozen=True, slots=True)
class _Request:
    jobs: Sequence[NewJob]
    answers: asyncio.Future[list[Accepted | Refused]]


class Submissions:
    """Inserts the jobs of many requests together. Used from one event loop."""

    def __init__(self, database: Database, quota: Quota) -> None:
        """Begin nothing yet."""
        self._database, self._quota = database, quota
        self._waiting: defaultdict[ApiKey, deque[_Request]] = defaultdict(deque)
        self._writers: set[asyncio.Task[None]] = set()
        self._unanswered = 0

    def __len__(self) -> int:
        """Return how many requests have no answer yet."""
        return self._unanswered

    async def submit(self, jobs: Sequence[NewJob], key: ApiKey) -> list[Accepted | Refused]:
        """Insert jobs; returns after the commit, with an answer to each, in order.

        Raises:
            psycopg.Error: the database did not take them; unknown whether it did where its answer was lost twice.
        """
        request = _Request(jobs, asyncio.get_running_loop().create_future())
        self._waiting[key].append(request)
        if len(self._writers) < WRITERS:
            writer = asyncio.create_task(self._write())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        self._unanswered += 1
        try:
            return await request.answers
        finally:
            self._unanswered -= 1

    async def _write(self) -> None:
        while self._waiting:
            key, requests = self._next()
            try:
                answers = await run_in_threadpool(self._insert, [job for each in requests for job in each.jobs], key)
            except Exception as error:  # noqa: BLE001 - whatever it is, each request is told
                await self._refuse(requests, key, error)
            else:
                _tell(requests, answers)
                if self._quota.is_due(key.tenant):  # now that nobody waits for it
                    await run_in_threadpool(self._recount, key.tenant)

    def _next(self) -> tuple[ApiKey, list[_Request]]:
        """Take the requests of the key that has waited longest, as many as fit."""
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

    async def _refuse(self, requests: list[_Request], key: ApiKey, error: Exception) -> None:
        """Tell of a failure; one that may be the fault of a single request is not the others'."""
        if len(requests) == 1 or isinstance(error, UNAVAILABLE):
            for request in requests:
                if not request.answers.done():
                    request.answers.set_exception(error)
            return
        for request in requests:
            try:
                _tell([request], await run_in_threadpool(self._insert, request.jobs, key))
            except Exception as own:  # noqa: BLE001
                await self._refuse([request], key, own)

    def _insert(self, jobs: Sequence[NewJob], key: ApiKey) -> list[Accepted | Refused]:
        """Insert in one statement, which commits itself; where its answer is lost, it is sent once more."""
        submission = Submission(jobs, key, self._quota)
        return run_idempotent(self._database, lambda tx: submit.submit(tx, submission))

    def _recount(self, tenant: str) -> None:
        with suppress(psycopg.Error, sqlalchemy.exc.SQLAlchemyError), self._database.connection() as connection:
            self._quota.recount(connection, tenant)


def _tell(requests: list[_Request], answers: list[Accepted | Refused]) -> None:
    rest = iter(answers)
    for request in requests:
        own = [next(rest) for _ in request.jobs]
        if not request.answers.done():  # nobody waits for it any more
            request.answers.set_result(own)
