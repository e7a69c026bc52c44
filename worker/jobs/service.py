"""What the front door may ask for: enqueue, cancel and retry, within the tenant's rights and quota.

`intake` has said, without a look at the database, what can be a job at all; `submit` inserts what the database does not
object to, and finds out what stood in the way of the rest.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.db import sql
from worker.errors import Conflict, NotFound, QuotaExceeded, Refused
from worker.jobs import transitions
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from worker.db import Tx
    from worker.jobs.keys import ApiKey
    from worker.jobs.transitions import NewJob

_ROUNDS = 4
_COUNT_EVERY_S = 1.0
_COUNT_FIRST_AFTER_S = 2.0
_QUEUED = JobState.QUEUED.value  # the text itself: an enumeration's member is slow to be written as JSON


class Accepted(NamedTuple):
    """A job that is kept: made by this request, or (`replayed`) by an earlier one under the same idempotency key."""

    id: UUID
    tenant: str
    state: str
    store: str
    key: str
    replayed: bool = False


@dataclass(slots=True)
class Quota:
    """Bounds the live jobs a tenant has: counted once a second while requests come, plus what was admitted here since.

    `recount` does it with nobody waiting. Where that has not been for a while, `take` counts before it grants.

    Several processes may together exceed it by what they admit within two seconds. Safe for several threads.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    _live: dict[str, int] = field(default_factory=dict)
    _counted: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, tx: Tx, tenant: str, wanted: int) -> int:
        """Return for how many of the wanted jobs there is room, and count them as there."""
        self._count(tx, tenant, _COUNT_FIRST_AFTER_S)
        with self._lock:
            live = self._live.get(tenant, 0)
            granted = max(0, min(wanted, self.most - live))
            self._live[tenant] = live + granted
            return granted

    def is_due(self, tenant: str) -> bool:
        """Say whether the tenant's jobs should be counted again before somebody has to wait for it."""
        return self._age_s(tenant) >= _COUNT_EVERY_S

    def recount(self, tx: Tx, tenant: str) -> None:
        """Count the tenant's live jobs, unless another has begun to meanwhile."""
        self._count(tx, tenant, _COUNT_EVERY_S)

    def _count(self, tx: Tx, tenant: str, if_older_s: float) -> None:
        with self._lock:
            if self._age_s(tenant) < if_older_s:
                return
            self._counted[tenant] = self.clock()  # the others go on with the last figure meanwhile
        live = _count_live(tx, tenant, self.most)
        with self._lock:
            self._live[tenant] = live

    def _age_s(self, tenant: str) -> float:
        return self.clock() - self._counted.get(tenant, float("-inf"))

    def give_back(self, tenant: str, unused: int) -> None:
        """Count jobs as not there that were taken but not made."""
        with self._lock:
            self._live[tenant] = max(0, self._live.get(tenant, 0) - unused)


def _count_live(tx: Tx, tenant: str, most: int) -> int:
    row = tx.execute(sql("count_live"), {"tenant": tenant, "most": most}).fetchone()
    assert row is not None
    return int(row["live"])


def submit(tx: Tx, jobs: Sequence[NewJob], key: ApiKey, quota: Quota) -> list[Accepted | Refused]:
    """Insert the jobs (all of the key's tenant) and answer each, in order.

    A job that collides is answered by what it collided with: its own first submission, another use of its idempotency
    key, or the live job on its target. If that ended in between, the job is tried again.
    """
    answers: dict[UUID, Accepted | Refused] = {}
    left = list(jobs)
    for _ in range(_ROUNDS):
        granted = quota.take(tx, key.tenant, len(left))
        made = transitions.enqueue(tx, left[:granted], key.actor) if granted else set()
        quota.give_back(key.tenant, granted - len(made))
        if len(made) == len(jobs):  # as nearly always: a dictionary by id would take as long as all the rest
            return [_made(job) for job in jobs]
        answers |= {job.id: _made(job) for job in left if job.id in made}
        over = {job.id for job in left[granted:]}
        left = [job for job in left if job.id not in made]
        if not left:
            break
        answers |= _explain(tx, left, over, quota.most)
        left = [job for job in left if job.id not in answers]
    return [answers.get(job.id) or _unsettled(job) for job in jobs]


def _made(job: NewJob) -> Accepted:
    return Accepted(job.id, job.tenant, _QUEUED, job.store, job.key)


def _explain(tx: Tx, lost: Sequence[NewJob], over: set[UUID], most: int) -> dict[UUID, Accepted | Refused]:
    """Say what stood in the way of jobs that were not inserted; those missing from the answer may be tried again."""
    first = _first_submissions(tx, lost)
    holders = _holders(tx, [job.target for job in lost])
    answers: dict[UUID, Accepted | Refused] = {}
    for job in lost:
        if job.idempotency_key in first:
            answers[job.id] = _repeated(job, first[job.idempotency_key])
        elif job.id in over:
            answers[job.id] = QuotaExceeded(f"tenant {job.tenant!r} has {most} live jobs, as many as it may have")
        elif job.target in holders:
            answers[job.id] = _busy(job, holders[job.target])
    return answers


def _first_submissions(tx: Tx, lost: Sequence[NewJob]) -> dict[str | None, dict[str, Any]]:
    keys = [job.idempotency_key for job in lost if job.idempotency_key is not None]
    if not keys:
        return {}
    rows = tx.execute(sql("first_submissions"), {"tenant": lost[0].tenant, "keys": keys})
    return {row["idempotency_key"]: row for row in rows}


def _holders(tx: Tx, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = tx.execute(sql("target_holders"), {"targets": list(targets)})
    return {row["target"]: row for row in rows}


def _repeated(job: NewJob, first: dict[str, Any]) -> Accepted | Refused:
    if first["request_digest"] != job.request_digest:
        return Conflict(
            f"idempotency key {job.idempotency_key!r} was used for another request, job {first['id']}",
            code="idempotency_mismatch",
            advice="Use a new idempotency key for a new request.",
            extra={"job_id": str(first["id"])},
        )
    return Accepted(first["id"], first["tenant"], first["state"], first["store"], first["key"], replayed=True)


def _busy(job: NewJob, holder: dict[str, Any]) -> Refused:
    mine = holder["tenant"] == job.tenant
    return Conflict(
        f"a live job already writes to {job.key!r} in store {job.store!r}",
        code="key_busy",
        advice="Wait until it has ended, cancel it, or choose another key.",
        extra={"job_id": str(holder["id"])} if mine else None,
    )


def _unsettled(job: NewJob) -> Refused:
    return Conflict(
        f"jobs for {job.key!r} in store {job.store!r} come and go too fast",
        code="key_busy",
        advice="Send the request again.",
    )


def cancel(tx: Tx, job_id: UUID, key: ApiKey) -> JobState:
    """Cancel a job that the key sees; returns its new state.

    Raises:
        NotFound: there is none.
        Conflict: ``not_cancellable``: it has ended.
    """
    _check_seen(tx, job_id, key)
    return transitions.cancel(tx, job_id, key.actor)


def retry(tx: Tx, job_id: UUID, key: ApiKey, *, force: bool) -> JobState:
    """Put a failed, cancelled or paused job that the key sees back to work; returns its new state. In a transaction.

    Raises:
        NotFound: there is none.
        Conflict: ``key_busy``, ``superseded`` (unless forced) or ``not_retryable``.
    """
    _check_seen(tx, job_id, key)
    try:
        return transitions.retry(tx, job_id, key.actor, force=force)
    except Conflict as conflict:
        other = conflict.extra.get("job_id")
        if other is None or _is_seen(tx, other, key):
            raise
        raise Conflict(
            "a job of another tenant has put a newer object there since", code=conflict.code, advice=conflict.advice
        ) from None


def _check_seen(tx: Tx, job_id: UUID, key: ApiKey) -> None:
    if not _is_seen(tx, job_id, key):
        raise NotFound(f"there is no job {job_id}")


def _is_seen(tx: Tx, job_id: object, key: ApiKey) -> bool:
    row = tx.execute("SELECT tenant FROM job WHERE id = %s::uuid", (job_id,)).fetchone()
    return row is not None and key.sees(row["tenant"])
