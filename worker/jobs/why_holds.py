"""The gates of holds: the queue, the store or the tenant of a job is paused. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs.why_reasons import ReasonCode, WaitReason, moment

if TYPE_CHECKING:
    from datetime import datetime

    from worker.jobs.hold_rows import Hold
    from worker.jobs.why import EngineState, Situation

_CODES = {
    "queue": ReasonCode.QUEUE_PAUSED,
    "store": ReasonCode.STORE_PAUSED,
    "tenant": ReasonCode.TENANT_PAUSED,
}


def queue_paused(it: Situation, engine: EngineState) -> WaitReason | None:
    """Return that everything is held."""
    return _gate(it, engine, "queue", "")


def store_paused(it: Situation, engine: EngineState) -> WaitReason | None:
    """Return that the job's store is held."""
    return _gate(it, engine, "store", it.store)


def tenant_paused(it: Situation, engine: EngineState) -> WaitReason | None:
    """Return that the job's tenant is held."""
    return None if it.tenant is None else _gate(it, engine, "tenant", it.tenant)


def _gate(it: Situation, engine: EngineState, kind: str, name: str) -> WaitReason | None:
    hold = engine.holds.get((kind, name))
    if hold is None or (it.dispatched_at is not None and not it.due):  # what was dispatched before goes on
        return None
    return held(hold, engine.now)


def held(hold: Hold, now: datetime) -> WaitReason:
    """An operator holds the queue, a store or a tenant."""
    what = f"{str(hold.kind).capitalize()} {hold.name}" if hold.name else "The queue"
    by = hold.person or (f"key {hold.key_name}" if hold.key_name else hold.actor)
    words = f"{what} is paused by {by} since {moment(hold.at, now)}"
    words += f": {hold.reason.rstrip('.')}." if hold.reason else "."
    command = f"{hold.kind}s resume {hold.name}" if hold.name else "queue resume"
    data = {"by": by, "reason": hold.reason} | ({str(hold.kind): hold.name} if hold.name else {})
    return WaitReason(_CODES[hold.kind], words, f"`sliceway {command}` lets its jobs go on.", since=hold.at, data=data)
