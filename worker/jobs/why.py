"""Why a job waits: the rules over what is known of the job (or of many alike) and of the engine. Pure.

A reason is a *gate* that the job has to pass before it is dispatched. The gates come in the order in which they hold a
job back: first its own (paused, its profile, its store's breaker, the time of its next attempt), then those of the
engine, then the caps of its store and the slots. A new gate is a function in `_HOLDS` and a constructor with a code in
`why_reasons.py`. The caps are those of `room.py`, by which the dispatcher selects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.jobs import why_caps, why_holds
from worker.jobs import why_reasons as reason
from worker.jobs.room import Out
from worker.jobs.states import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker.jobs.cap_rows import SetCap
    from worker.jobs.hold_rows import Hold
    from worker.jobs.room import Lane, Limits, Load
    from worker.jobs.why_reasons import Pause, StoredError, WaitReason

UNTAKEN_S = 30.0
"""If a message has waited for so long and no worker has work, no worker consumes the queue."""
PLACE_MAX = 10_000
"""A place in line is counted so far."""
_TASK = {
    JobState.INITIALIZING: "init",
    JobState.FINISHING: "finish",
    JobState.CANCELLING: "abort",
}


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A store's breaker."""

    error: StoredError
    opened_at: datetime
    probe_at: datetime


@dataclass(frozen=True, slots=True)
class EngineState:
    """What is known of the dispatcher and the workers, at one moment.

    Attributes:
        now: by the database's clock.
        workers: live worker processes.
        last_heartbeat_at: the latest of any worker; None if there never was one.
        leads_until: when the lease of the last leader ends, or ended.
        untaken_since: when the oldest of what no worker takes was dispatched; None where workers take it.
        read_only: whether the database takes no writes.
        breakers: those that are open, by store.
        roots: root -> live workers that can read it.
        limits: how much may be out, as the dispatcher has it.
        in_flight: (store, tenant) -> what is out.
        waiting: (store, tenant) -> the priority of the first that is due there.
        holds: (kind, name) -> the hold.
        caps: (kind, name) -> what an operator allows at once.
        only_tenant: whose names may be shown; None: all.
    """

    now: datetime
    workers: int
    last_heartbeat_at: datetime | None
    leads_until: datetime | None
    untaken_since: datetime | None
    read_only: bool
    breakers: Mapping[str, OpenBreaker]
    roots: Mapping[str, int]
    limits: Limits
    in_flight: Mapping[Lane, Load]
    waiting: Mapping[Lane, int]
    holds: Mapping[tuple[str, str], Hold] = field(default_factory=dict)
    caps: Mapping[tuple[str, str], SetCap] = field(default_factory=dict)
    only_tenant: str | None = None

    @property
    def out(self) -> int:
        """How many steps and slices are out."""
        return sum(load.requests for load in self.in_flight.values())

    def holders(self) -> list[dict[str, object]]:
        """Return who holds the slots, most first; other tenants than the one whose names may be shown together."""
        held: dict[tuple[str | None, str | None], int] = {}
        for (store, tenant), load in self.in_flight.items():
            mine = self.only_tenant in {None, tenant}
            who = (tenant, store) if mine else (None, None)
            held[who] = held.get(who, 0) + load.requests
        most_first = sorted(held.items(), key=lambda each: (-each[1], str(each[0])))
        return [{"tenant": tenant, "store": store, "in_flight": count} for (tenant, store), count in most_first[:10]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What decides why a job waits; also of many jobs of which all of this is the same.

    Attributes:
        step_running: whether a worker holds the job's own step.
        sending: slices that workers send.
        dispatched_at: since when the oldest message of the job waits for a worker.
        due: whether a step or a slice waits for no time.
        next_at: the next attempt of what waits for a time.
        failing_since: since when attempts fail.
        error: what they failed with.
        carries, carried_bytes: of what is due, see `rows.DueItem`.
        ignores_breaker: an abort that goes out although the breaker is open.
        abandoned: it ends without its store.
        ahead: how many jobs of its line go before it.
        not_served: why the stores file does not serve it any more.
        worker, heartbeat_at: who holds the step, if that may be shown, and the last heartbeat.
        rate: bytes a second, where it sends.
    """

    state: JobState
    store: str
    tenant: str | None = None
    priority: int | None = None
    step_running: bool = False
    sending: int = 0
    dispatched_at: datetime | None = None
    due: bool = False
    next_at: datetime | None = None
    failing_since: datetime | None = None
    error: StoredError | None = None
    root: str = ""
    pause: Pause | None = None
    carries: bool = False
    carried_bytes: int | None = None
    ignores_breaker: bool = False
    abandoned: bool = False
    ahead: int = 0
    place_known: bool = False
    not_served: StoredError | None = None
    worker: str | None = None
    heartbeat_at: datetime | None = None
    dead_after_s: float = 10.0
    rate: int | None = None

    @property
    def runs(self) -> bool:
        """Whether a worker is at it; a cancelled job only waits for what is still in flight."""
        return self.step_running or (self.sending > 0 and self.state is not JobState.CANCELLING)


def explain(it: Situation, engine: EngineState) -> list[WaitReason]:
    """Return the reasons in the order of the gates; the first is what has to change first.

    Of a job that runs the first says what runs, and others what holds back the rest of it. A job that has ended waits
    for nothing. Every other job has a reason.
    """
    if it.state in FINAL:
        return []
    found = [each for gate in _RUNS if (each := gate(it, engine)) is not None]
    if it.step_running:
        return found
    if it.state is JobState.CANCELLING and (it.sending or it.abandoned):
        return [reason.claims_end(it.sending, abandoned=it.abandoned)]
    if it.runs and not (it.due or it.dispatched_at or it.pause):
        return found
    held = [each for gate in _HOLDS if (each := gate(it, engine)) is not None] + of_the_engine(engine)
    return found + (held or _room(it, engine) or [reason.due()])


def of_the_engine(engine: EngineState) -> list[WaitReason]:
    """Return what holds back every job that is due."""
    return [each for gate in _ENGINE if (each := gate(engine)) is not None]


def _running(it: Situation, _engine: EngineState) -> WaitReason | None:
    if not it.runs:
        return None
    return reason.running(_TASK.get(it.state, "step") if it.step_running else None, it.worker, it.sending, it.rate)


def _silent(it: Situation, engine: EngineState) -> WaitReason | None:
    if it.heartbeat_at is None:
        return None
    if (engine.now - it.heartbeat_at).total_seconds() <= it.dead_after_s:
        return None
    return reason.worker_silent(it.worker, it.heartbeat_at, engine.now)


def _paused(it: Situation, engine: EngineState) -> WaitReason | None:
    if it.pause is None or it.state not in {JobState.QUEUED, JobState.UPLOADING}:
        return None  # what ends a job is not held back: see `states.DUE_STEP`
    return reason.paused(it.pause, engine.now)


def _not_served(it: Situation, _engine: EngineState) -> WaitReason | None:
    return None if it.not_served is None else reason.not_served(it.store, it.not_served)


def _breaker(it: Situation, engine: EngineState) -> WaitReason | None:
    breaker = engine.breakers.get(it.store)
    if breaker is None or it.ignores_breaker:
        return None
    return reason.breaker_open(it.store, breaker.error, breaker.opened_at, breaker.probe_at, engine.now)


def _later(it: Situation, engine: EngineState) -> WaitReason | None:
    if it.due or it.dispatched_at or it.next_at is None or it.next_at <= engine.now:
        return None
    if it.error and it.error.code == reason.ReasonCode.ROOT_UNAVAILABLE:
        readers = engine.roots.get(it.root, 0)
        return reason.root_unavailable(
            it.root, it.error, it.next_at, it.failing_since, now=engine.now, readers=readers, workers=engine.workers
        )
    return reason.retry_later(it.store, it.error, it.next_at, it.failing_since, engine.now)


def _read_only(engine: EngineState) -> WaitReason | None:
    return reason.database_read_only() if engine.read_only else None


def _no_worker(engine: EngineState) -> WaitReason | None:
    return None if engine.workers else reason.no_worker(engine.last_heartbeat_at, engine.now)


def _no_leader(engine: EngineState) -> WaitReason | None:
    if not engine.workers or (engine.leads_until is not None and engine.leads_until > engine.now):
        return None  # the leader is a worker
    return reason.no_leader(engine.workers, engine.leads_until, engine.now)


def _no_consumer(engine: EngineState) -> WaitReason | None:
    if not engine.workers or engine.untaken_since is None:
        return None
    return reason.no_consumer(engine.workers, engine.untaken_since, engine.now)


_RUNS = (_running, _silent)
_HOLDS = (
    *(_paused, why_holds.queue_paused, why_holds.store_paused, why_holds.tenant_paused),
    *(_not_served, _breaker, _later),
)
_ENGINE = (_read_only, _no_worker, _no_leader, _no_consumer)


def untaken(row: Mapping[str, float]) -> float | None:
    """Return for how many seconds no worker takes what is dispatched, by `untaken.sql`; None: they do."""
    untaken_s = row["untaken_s"] or 0.0
    return None if not row["live"] or row["at_work"] or untaken_s < UNTAKEN_S else untaken_s


def _room(it: Situation, engine: EngineState) -> list[WaitReason]:
    """Return what lacks for something that is due or dispatched, and that nothing else holds back."""
    limits, out = engine.limits, engine.out
    if it.dispatched_at is not None:
        return [reason.taken_soon(it.dispatched_at, engine.now, out, limits.slots, engine.holders())]
    if not it.due:
        return []  # its time has come: the next tick makes it due
    place = it.ahead + 1 if it.place_known else None
    before = min(it.ahead, max(0, limits.free))  # of its line, and let go by the slots
    state = Out(limits, engine.in_flight)
    reached = state.reached(it.store, it.tenant, it.carried_bytes, carries=it.carries, before=before)
    if reached is not None:
        figures = state.figures(reached, it.store, it.tenant, it.carried_bytes)
        return [why_caps.cap(it, engine, figures, place)]
    if it.ahead < limits.free:
        return []
    found = [reason.slot(place, out, limits.slots, most=PLACE_MAX, holders=engine.holders())]
    return found + _share(it, engine)


def _share(it: Situation, engine: EngineState) -> list[WaitReason]:
    """Return that other tenants go first, where they do: by priority, then the least in flight, as the dispatcher."""
    if it.tenant is None or it.priority is None:
        return []
    of_tenant = Out(engine.limits, engine.in_flight).of_tenant
    own = of_tenant[it.tenant]
    others = {
        tenant
        for (_, tenant), priority in engine.waiting.items()
        if tenant != it.tenant and (priority, of_tenant[tenant]) < (it.priority, own)
    }
    return [reason.tenant_share(it.tenant, own, engine.limits.slots, len(others))] if others else []
