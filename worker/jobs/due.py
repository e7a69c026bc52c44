"""What is due, and what is in flight: the dispatcher's questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.jobs.links import KNOWN_FOR_S, Link
from worker.jobs.room import NO_CAPS, Load, OperatorCaps
from worker.jobs.rows import DueItem
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from worker.db.pool import Connection


@dataclass(frozen=True, slots=True)
class Held:
    """What is held: the queue, stores and tenants, by name."""

    queue: bool = False
    stores: Sequence[str] = ()
    tenants: Sequence[str] = ()


NOTHING_HELD = Held()


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """What a tick of the dispatcher needs to know.

    Attributes:
        now: by the database's clock.
        slots: what all live workers can send at once.
        claimed_through: the latest time of dispatch among messages that were claimed.
        last_ended: when the last worker ended, dead or stopped.
        next_due_s: seconds until the next waiting step or slice is due, negative if it is; None if none waits.
        abort_due: whether a cancelled job's last claim has ended and its abort is not dispatched yet.
        waiting_stores: stores with an open breaker -> whether a probe is due.
        held: what is held, of which nothing is dispatched.
        caps: what operators allow at once.
        links: store -> its link, where it has carried anything lately.
        links_at: when a live worker last reported of its links.
        in_flight: (store, tenant) -> steps and slices dispatched or being worked on.
    """

    now: datetime
    slots: int
    claimed_through: datetime | None
    last_ended: datetime | None
    next_due_s: float | None
    abort_due: bool
    waiting_stores: dict[str, bool]
    held: Held
    caps: OperatorCaps
    links: dict[str, Link]
    links_at: datetime | None
    in_flight: dict[tuple[str, str], Load]


def snapshot(tx: Connection, *, whole_bytes: int) -> QueueSnapshot:
    """Read all of it in one statement; files of at most ``whole_bytes`` may be sent by an init."""
    row = tx.execute(sql("snapshot"), {"whole_bytes": whole_bytes, "known_for_s": KNOWN_FOR_S}).fetchone() or {}
    return QueueSnapshot(
        now=row["now"],
        slots=row["slots"],
        claimed_through=row["claimed_through"],
        last_ended=row["last_ended"],
        next_due_s=row["next_due_s"],
        abort_due=row["abort_due"],
        waiting_stores={breaker["store"]: breaker["due"] for breaker in row["breakers"]},
        held=_held(row["holds"]) if row["holds"] else NOTHING_HELD,
        caps=_caps(row["caps"]) if row["caps"] else NO_CAPS,
        links={
            link["store"]: Link(link["goodput_bytes_per_s"], link["answer_bytes"], link["answer_s"])
            for link in row["links"]
        },
        links_at=row["links_at"],
        in_flight={
            (lane["store"], lane["tenant"]): Load(lane["requests"], lane["carrying"]) for lane in row["in_flight"]
        },
    )


def _held(rows: Sequence[Mapping[str, str]]) -> Held:
    names: dict[str, list[str]] = {"queue": [], "store": [], "tenant": []}
    for row in rows:
        names[row["kind"]].append(row["name"])
    return Held(bool(names["queue"]), names["store"], names["tenant"])


def _caps(rows: Sequence[Mapping[str, Any]]) -> OperatorCaps:
    most: dict[str, dict[str, int]] = {"store": {}, "tenant": {}}
    for row in rows:
        most[row["kind"]][row["name"]] = row["most"]
    return OperatorCaps(most["store"], most["tenant"])


def due_steps(
    tx: Connection, *, per_lane: int, blocked: Sequence[str], whole_bytes: int, held_tenants: Sequence[str] = ()
) -> list[DueItem]:
    """Return the first due steps of every lane (store, tenant) but those of blocked stores and held tenants."""
    params = {
        "per_lane": per_lane, "blocked": list(blocked), "whole_bytes": whole_bytes, "held_tenants": list(held_tenants),
    }  # fmt: skip
    return [DueItem.from_row(row) for row in tx.execute(sql("due_steps"), params)]


def due_slices(
    tx: Connection, *, per_lane: int, window: int, blocked: Sequence[str], held_tenants: Sequence[str] = ()
) -> list[DueItem]:
    """Return the first due slices of every such lane, as many of each job as its window has room for."""
    params = {"per_lane": per_lane, "window": window, "blocked": list(blocked), "held_tenants": list(held_tenants)}
    return [DueItem.from_row(row) for row in tx.execute(sql("due_slices"), params)]
