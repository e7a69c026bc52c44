"""Reads what `why` needs: of a job, or of all live jobs in groups, and of the engine. Reads only, in one snapshot."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from worker.errors import NotFound
from worker.jobs import caps, due, holds, why
from worker.jobs.places import wait_error
from worker.jobs.queries import PAGE_TIMEOUT_MS, RATE_MOST_SLICES, RATE_OVERDUE_S, RATE_WINDOW_S
from worker.jobs.room import ENDING_FIRST, Limits
from worker.jobs.statements import sql
from worker.jobs.states import FINAL, JobState, Step
from worker.jobs.why_reasons import OF_THE_ENGINE, Pause, ReasonCode, StoredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.rows import DueItem
    from worker.jobs.why import EngineState, Situation
    from worker.jobs.why_reasons import WaitReason

_FOR_AN_OPERATOR = frozenset(
    {
        ReasonCode.QUEUE_PAUSED, ReasonCode.STORE_PAUSED, ReasonCode.TENANT_PAUSED,
        ReasonCode.BREAKER_OPEN, ReasonCode.STORE_CHANGED, ReasonCode.TENANT_NOT_ALLOWED, ReasonCode.ROOT_UNAVAILABLE,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobWhy:
    """Why one job waits.

    Attributes:
        at: when this was so.
        state: of the job.
        runs: whether a worker is at it.
        reasons: see `why.explain`.
    """

    at: datetime
    state: JobState
    runs: bool
    reasons: list[WaitReason]


@dataclass(frozen=True, slots=True)
class Bucket:
    """The jobs that have the same first reason."""

    jobs: int
    reason: WaitReason


@dataclass(frozen=True, slots=True)
class QueueWhy:
    """What all live jobs wait for: the most important first."""

    at: datetime
    waiting: int
    running: int
    reasons: list[Bucket]


def job_why(connection: Connection, job_id: UUID, key: ApiKey, settings: Settings) -> JobWhy:
    """Return why a job waits.

    Raises:
        NotFound: there is none that the key sees.
    """
    with _snapshot(connection) as tx:
        known = {"whole_bytes": _whole_bytes(settings), "known": list(settings.profiles.stores)}
        row = tx.execute(sql("why_job"), {"job": job_id, **known}).fetchone()
        if row is None or not key.sees(row["tenant"]):
            raise NotFound(f"there is no job {job_id}")
        engine = _engine(tx, settings, key.only_tenant, lanes=True)
        if (state := JobState(row["state"])) in FINAL:
            return JobWhy(engine.now, state, runs=False, reasons=[])
        it = _of_job(tx, row, settings, shows_worker=key.only_tenant is None)
    return JobWhy(engine.now, state, it.runs, why.explain(it, engine))


def queue_why(connection: Connection, key: ApiKey, settings: Settings) -> QueueWhy:
    """Return what the live jobs that the key sees wait for."""
    with _snapshot(connection) as tx:
        known = {"whole_bytes": _whole_bytes(settings), "known": list(settings.profiles.stores)}
        engine = _engine(tx, settings, key.only_tenant, lanes=False)
        tx.execute("SET LOCAL enable_sort = off")  # the planner expects a group a row, and would sort all of them
        rows = tx.execute(sql("why_groups"), {"tenant": key.only_tenant, **known}).fetchall()
    groups = [(row["jobs"], _of_group(row)) for row in rows]
    running = sum(jobs for jobs, it in groups if it.runs)
    waiting = sum(jobs for jobs, it in groups if not it.runs)
    return QueueWhy(engine.now, waiting, running, _buckets([each for each in groups if not each[1].runs], engine))


@contextmanager
def _snapshot(connection: Connection) -> Iterator[Connection]:
    """Let several statements see the same rows."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = {PAGE_TIMEOUT_MS}")
        yield connection


def _whole_bytes(settings: Settings) -> int:
    """Return the size of the largest file that an init may send, as the dispatcher has it."""
    return max((store.whole_bytes for store in settings.profiles.stores.values()), default=0)


def _engine(tx: Connection, settings: Settings, only_tenant: str | None, *, lanes: bool) -> EngineState:
    """Read what is known of dispatcher and workers; with ``lanes`` also who waits, by the dispatcher's statements."""
    timers, whole_bytes = settings.timers, _whole_bytes(settings)
    seen = due.snapshot(tx, whole_bytes=whole_bytes)
    row = tx.execute(sql("why_engine"), {"dead_after_s": timers.dead_after_s}).fetchone() or {}
    untaken_s = why.untaken(tx.execute(sql("untaken")).fetchone() or {})
    first: list[DueItem] = []
    if lanes:
        blocked = [store for store, is_due in seen.waiting_stores.items() if not is_due] + list(seen.held.stores)
        held, window = seen.held.tenants, settings.window or 2 * seen.slots
        first = due.due_steps(tx, per_lane=1, blocked=blocked, whole_bytes=whole_bytes, held_tenants=held)
        first += due.due_slices(tx, per_lane=1, window=window, blocked=blocked, held_tenants=held)
    waiting: dict[tuple[str, str], int] = {}
    for item in first:
        lane = (item.store, item.tenant)
        waiting[lane] = min(item.priority, waiting.get(lane, item.priority))
    free = 2 * seen.slots - sum(load.requests for load in seen.in_flight.values())
    most = seen.caps.over({name: store.max_in_flight for name, store in settings.profiles.stores.items()})
    probed, target_s, slow_s = frozenset(seen.waiting_stores), timers.slice_target_s, timers.slow_slice_s
    limits = Limits(free, seen.slots, most, seen.links, probed, target_s, slow_s, seen.caps.tenants)
    return why.EngineState(
        now=seen.now,
        workers=row["workers"],
        last_heartbeat_at=row["heartbeat_at"],
        leads_until=row["leads_until"],
        untaken_since=None if untaken_s is None else seen.now - timedelta(seconds=untaken_s),
        read_only=row["read_only"],
        breakers={each["store"]: _breaker(each) for each in row["breakers"]},
        roots=row["roots"],
        limits=limits,
        in_flight=seen.in_flight,
        waiting=waiting,
        holds={(hold.kind, hold.name): hold for hold in holds.list_holds(tx)},
        caps={(each.kind, each.name): each for each in caps.list_caps(tx)},
        only_tenant=only_tenant,
    )


def _breaker(row: Mapping[str, Any]) -> why.OpenBreaker:
    opened_at, probe_at = (datetime.fromisoformat(row[name]) for name in ("opened_at", "probe_at"))
    return why.OpenBreaker(StoredError.of(row["error"]), opened_at, probe_at)


def _of_job(tx: Connection, row: Mapping[str, Any], settings: Settings, *, shows_worker: bool) -> Situation:
    """Return a live job's situation, by its row of `why_job.sql`; a worker's name is that of a host."""
    state, uploads = JobState(row["state"]), row["state"] == JobState.UPLOADING
    error = (row["slice_error"] or row["error"]) if uploads else row["error"]
    step_running, sending = row["step"] == Step.RUNNING, row["sending"] or 0
    is_due = row["due_bytes"] is not None if uploads else row["step"] == Step.PENDING and row["not_before"] is None
    refused = None if step_running or sending else wait_error(settings.profiles, SimpleNamespace(**row))
    it = why.Situation(
        state=state,
        store=row["store"],
        tenant=row["tenant"],
        priority=row["priority"],
        step_running=step_running,
        sending=sending,
        dispatched_at=row["dispatched_at"] if row["step"] == Step.DISPATCHED else row["slice_dispatched_at"],
        due=is_due,
        next_at=row["slice_not_before"] if uploads else row["not_before"],
        failing_since=row["failing_since"],
        error=StoredError.of(error) if error else None,
        root=row["source"].get("root", ""),
        pause=Pause(row["paused_at"], row["paused_by"], row["pause_reason"]) if row["paused_at"] else None,
        carries=uploads or row["carries"],
        carried_bytes=row["due_bytes"] if uploads else row["size_bytes"],
        ignores_breaker=row["ignores_breaker"],
        abandoned=row["abandoned"],
        not_served=None if refused is None else StoredError(refused.code, refused.message, refused.advice),
        worker=row["worker"] if shows_worker else None,
        heartbeat_at=row["heartbeat_at"],
        dead_after_s=settings.timers.dead_after_s,
        rate=_rate(tx, row["id"]) if step_running or sending else None,
    )
    return replace(it, ahead=_ahead(tx, row), place_known=True) if is_due else it


def _rate(tx: Connection, job_id: UUID) -> int:
    params = {"job": job_id, "window_s": RATE_WINDOW_S, "overdue_s": RATE_OVERDUE_S, "most_slices": RATE_MOST_SLICES}
    row = tx.execute(sql("upload_rate"), params).fetchone() or {}
    return int(row["bytes_per_s"])


def _ahead(tx: Connection, row: Mapping[str, Any]) -> int:
    rank = ENDING_FIRST[row["state"]]
    params = {
        **{name: row[name] for name in ("store", "tenant", "priority")},
        "job": row["id"],
        "states": [str(state) for state, other in ENDING_FIRST.items() if other <= rank],
        "slices_first": ENDING_FIRST[JobState.UPLOADING] < rank,
        "most": why.PLACE_MAX,
    }
    return int((tx.execute(sql("why_line"), params).fetchone() or {})["ahead"])


def _of_group(row: Mapping[str, Any]) -> Situation:
    """Return the situation of many jobs, by a row of `why_groups.sql`."""
    code, message = row["error_code"], "" if row["messages_differ"] else row["message"] or ""
    reason = None if row["pause_reasons_differ"] else row["pause_reason"]
    return why.Situation(
        state=JobState(row["state"]),
        store=row["store"],
        tenant=row["held_or_capped_tenant"],
        step_running=row["step_running"],
        sending=int(row["sending"]),
        dispatched_at=row["dispatched_at"],
        due=row["due"],
        next_at=row["next_at"],
        failing_since=row["failing_since"],
        error=StoredError(code, message, row["advice"] or "") if code else None,
        root=row["root"] or "",
        pause=Pause(row["paused_at"], None, reason) if row["paused"] else None,
        carries=row["state"] == JobState.UPLOADING or row["carries"],
        carried_bytes=row["carried_bytes"],
        ignores_breaker=row["ignores_breaker"],
        abandoned=row["abandoned"],
        ahead=row["jobs"] - 1,
    )


def _buckets(groups: list[tuple[int, Situation]], engine: EngineState) -> list[Bucket]:
    """Return the groups by their first reason, and what holds the engine even if no job waits for it alone."""
    found: dict[object, tuple[int, Situation]] = {}
    for jobs, it in sorted(groups, key=lambda each: -each[0]):
        reason = why.explain(it, engine)[0]
        error = reason.data.get("error") or {}
        key = (
            reason.code,
            reason.data.get("store"),
            error.get("code"),
            reason.data.get("root"),
            reason.since is None,
            reason.data.get("tenant"),
        )
        before = found.get(key)
        found[key] = (jobs, it) if before is None else (before[0] + jobs, _both(before[1], it))
    buckets = [Bucket(jobs, why.explain(it, engine)[0]) for jobs, it in found.values()]
    counted = {bucket.reason.code for bucket in buckets}
    buckets += [Bucket(0, each) for each in why.of_the_engine(engine) if each.code not in counted]
    return sorted(buckets, key=_importance)


def _importance(bucket: Bucket) -> tuple[int, int]:
    code = bucket.reason.code
    return 0 if code in OF_THE_ENGINE else 1 if code in _FOR_AN_OPERATOR else 2, -bucket.jobs


def _both(one: Situation, other: Situation) -> Situation:
    """Return the situation of both, which have the same first reason: the earliest times; words only if they agree."""

    def least(name: str) -> Any:
        values = [value for each in (one, other) if (value := getattr(each, name)) is not None]
        return min(values, default=None)

    pause, error = one.pause, one.error
    if one.pause and other.pause:
        reason = one.pause.reason if one.pause.reason == other.pause.reason else None
        pause = Pause(min(one.pause.at, other.pause.at), None, reason)
    if one.error and other.error and one.error != other.error:
        error = StoredError(one.error.code, "", one.error.advice)
    times = {name: least(name) for name in ("dispatched_at", "next_at", "failing_since", "carried_bytes")}
    tenant = one.tenant if one.tenant == other.tenant else None
    return replace(one, tenant=tenant, pause=pause, error=error, ahead=one.ahead + other.ahead + 1, **times)
