"""Checks our tables: live workers, the leader, roots and stores at the workers, and jobs that need an operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from worker.config.timeouts import SLOW_SLICE_S
from worker.doctor.findings import Finding, Level
from worker.jobs.caps import list_caps
from worker.jobs.hold_rows import HoldKind
from worker.jobs.holds import list_holds
from worker.jobs.links import KNOWN_FOR_S
from worker.jobs.states import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config.profiles import Profiles
    from worker.db.pool import Connection

RECENT = timedelta(days=7)
"""Period in which failed and cancelled jobs are counted."""
_UNSUCCESSFUL = [str(state) for state in FINAL if state is not JobState.SUCCEEDED]
_WORKERS = """
  SELECT id, name, roots, heartbeat_at > now() - make_interval(secs => %s) AS lives,
    extract(epoch FROM now() - heartbeat_at)::float8 AS silent_s
  FROM worker WHERE ended_at IS NULL ORDER BY name"""
_LEADER = "SELECT holder, until > now() AS leads FROM leadership WHERE name = 'dispatcher'"
_WAITING = """
  SELECT coalesce(error->>'code', 'paused') AS code, min(error->>'advice') AS advice, count(*) AS n,
    extract(epoch FROM now() - min(coalesce(paused_at, failing_since)))::float8 AS for_s
  FROM job WHERE finished_at IS NULL AND (failing_since IS NOT NULL AND error IS NOT NULL OR paused_at IS NOT NULL)
  GROUP BY 1 ORDER BY 3 DESC LIMIT 5"""
_LINKS = """
  SELECT store, goodput_bytes_per_s, answer_s FROM store_link
  WHERE measured_at > now() - make_interval(secs => %s) ORDER BY store"""
_RECENT = """
  WITH RECURSIVE tenants AS (
    (SELECT tenant FROM job ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT n.tenant FROM tenants t CROSS JOIN LATERAL (
      SELECT tenant FROM job WHERE tenant > t.tenant ORDER BY tenant LIMIT 1) n
  )
  SELECT count(*) FILTER (WHERE j.error->>'code' = 'quarantined') AS quarantined,
    count(*) FILTER (WHERE j.result ? 'session_left_open') AS left_open
  FROM tenants t JOIN job j ON j.tenant = t.tenant AND j.state = ANY(%s) AND j.id >= %s"""


class _Worker(NamedTuple):
    """A worker process that has not ended."""

    id: UUID
    name: str
    roots: list[str]
    lives: bool
    """Whether its last heartbeat is recent."""
    silent_s: float


class _Leader(NamedTuple):
    """The row of the dispatcher's leadership."""

    holder: UUID
    leads: bool
    """Whether its term goes on."""


def work(connection: Connection, dead_after_s: float, profiles: Profiles) -> Iterator[Finding]:
    """Check the worker processes, then the jobs that may need an operator."""
    workers = [_Worker(**row) for row in connection.execute(_WORKERS, (dead_after_s,))]
    live = [worker for worker in workers if worker.lives]
    yield from _workers(workers, live)
    if live:
        leader = connection.execute(_LEADER).fetchone()
        yield _leader(None if leader is None else _Leader(**leader), live)
        yield from _roots(live, profiles)
    yield from _holds(connection)
    yield from _caps(connection)
    yield from _breakers(connection)
    yield from _links(connection)
    yield from _waiting(connection)
    yield from _recent(connection)


def _workers(workers: list[_Worker], live: list[_Worker]) -> Iterator[Finding]:
    silent = [worker for worker in workers if not worker.lives]
    if not live:
        yield Finding("workers", Level.NOTE, "none is running", "Start one: `sliceway worker`.")
    else:
        yield Finding("workers", Level.OK, f"{len(live)} {'process' if len(live) == 1 else 'processes'} running")
    if silent and live:  # without a live worker no leader can declare them dead, and the line above is enough
        silent_s = max(worker.silent_s for worker in silent)
        text = f"{_names(silent)} silent for {silent_s:.0f} s, and not yet taken for dead"
        advice = "Run it again in some seconds; if it stays, see the dispatcher's line and the workers' logs."
        yield Finding("worker heartbeats", Level.FAILED, text, advice)


def _names(workers: list[_Worker]) -> str:
    if len(workers) == 1:
        return f"{workers[0].name} is"
    return f"{workers[0].name} and {len(workers) - 1} more are"


def _leader(leader: _Leader | None, live: list[_Worker]) -> Finding:
    if leader is None or not leader.leads:
        advice = "Run it again in some seconds; if it stays, restart the workers and read their logs."
        return Finding("dispatcher", Level.FAILED, "none leads, so nothing is dispatched", advice)
    name = next((worker.name for worker in live if worker.id == leader.holder), "a worker that has just ended")
    return Finding("dispatcher", Level.OK, f"{name} leads")


def _roots(live: list[_Worker], profiles: Profiles) -> Iterator[Finding]:
    for root in profiles.roots:
        lacking = [worker for worker in live if root not in worker.roots]
        if not lacking:
            continue
        all_lack = len(lacking) == len(live)
        text = "no worker process can read it" if all_lack else f"{len(lacking)} of {len(live)} workers cannot read it"
        advice = "Mount it on every worker, and give all the same stores file: any worker may get any job."
        yield Finding(f"root {root} at the workers", Level.FAILED if all_lack else Level.NOTE, text, advice)


def _holds(connection: Connection) -> Iterator[Finding]:
    for hold in list_holds(connection):
        what = " ".join(part for part in (str(hold.kind), hold.name) if part)
        by = hold.person or hold.key_name or hold.actor
        text = f"paused since {hold.at.astimezone(UTC):%Y-%m-%d %H:%MZ} by {by}: {hold.reason or 'no reason given'}"
        group = "queue" if hold.kind is HoldKind.QUEUE else f"{hold.kind}s"
        advice = " ".join(part for part in (f"`sliceway {group} resume", hold.name) if part) + "` lets its jobs go on."
        yield Finding(what, Level.NOTE, text, advice)


def _caps(connection: Connection) -> Iterator[Finding]:
    for cap in list_caps(connection):
        by, at = cap.person or cap.key_name or cap.actor, f"{cap.at.astimezone(UTC):%Y-%m-%d %H:%MZ}"
        text = f"limited to {cap.max_in_flight:,} in flight since {at} by {by}: {cap.reason or 'no reason given'}"
        advice = f"`sliceway limits set {cap.kind}:{cap.name} --in-flight none` removes the limit."
        yield Finding(f"{cap.kind} {cap.name}", Level.NOTE, text, advice)


def _breakers(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute("SELECT store, error, opened_at FROM breaker ORDER BY store"):
        text = f"its jobs wait since {row['opened_at'].astimezone(UTC):%Y-%m-%d %H:%MZ}: {row['error']['message']}"
        yield Finding(f"store {row['store']} at the workers", Level.FAILED, text, row["error"].get("advice") or "")


def _links(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(_LINKS, (KNOWN_FOR_S,)):
        text = f"{row['goodput_bytes_per_s'] / 1e6:.3g} MB/s, a slice takes {row['answer_s']:.2g} s"
        if row["answer_s"] > SLOW_SLICE_S:
            text += ": it counts as slow, and holds half of the slots at most"
        yield Finding(f"link to store {row['store']}", Level.OK, text)


def _waiting(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(_WAITING):
        since = "" if row["for_s"] is None else f", the first for {row['for_s'] / 60:.0f} min"
        paused = "`sliceway jobs retry ID` lets them go on."
        advice = paused if row["code"] == "paused" else row["advice"] or ""
        yield Finding("jobs that wait", Level.NOTE, f"{row['n']}, {row['code']}{since}", advice)


def _recent(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_RECENT, (_UNSUCCESSFUL, _first_id(datetime.now(UTC) - RECENT))).fetchone() or {}
    if row["quarantined"]:
        text = f"{row['quarantined']} in the last {RECENT.days} days: whichever worker took them died"
        advice = "`sliceway jobs list --error-code quarantined`; look for the cause (memory, the file), then retry."
        yield Finding("jobs in quarantine", Level.NOTE, text, advice)
    if row["left_open"]:
        text = f"{row['left_open']} in the last {RECENT.days} days, of cancelled jobs"
        advice = "Nothing: the store lets them expire; the jobs' results say why each was left."
        yield Finding("sessions left open", Level.NOTE, text, advice)


def _first_id(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of the moment: UUIDv7 sort by time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
