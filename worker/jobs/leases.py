"""Who may do what until when: claims on steps and slices, the workers that hold them, who leads, which stores wait.

Leases and schedules use the database's clock only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.types.json import Jsonb

from worker.errors import StaleClaim
from worker.jobs.links import KNOWN_FOR_S, Link
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from worker.db.pool import Tx

Row = dict[str, Any]


def json_or_null(value: Any) -> Jsonb | None:
    """Return the value as a JSON parameter, None as NULL."""
    return None if value is None else Jsonb(value)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job's step (`number` None) or on one slice, until it ends, lapses or is superseded."""

    job_id: UUID
    number: int | None
    token: int
    epoch: int
    worker: UUID

    @property
    def actor(self) -> str:
        """How the history names the holder."""
        return f"worker {self.worker}"

    def params(self) -> Row:
        """Return the guard's parameters."""
        return {
            "job": self.job_id,
            "number": self.number,
            "token": self.token,
            "epoch": self.epoch,
            "worker": self.worker,
            "actor": self.actor,
        }


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A slice that the store has: what a checkpoint writes down."""

    claim: Claim
    tag: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Deferral:
    """How a claim goes back, decided by `retry.py`.

    Attributes:
        again: the wait until it may be handed out again; None for none.
        error: what the job and the slice remember; None for an interruption of ours, which leaves no trace.
        attempt: whether it counts as an attempt.
        restart_clock: whether the time in failure begins anew.
    """

    again: timedelta | None
    error: Row | None
    attempt: bool = False
    restart_clock: bool = False

    def params(self) -> Row:
        """Return the statement's parameters."""
        return {
            "again_s": None if self.again is None else self.again.total_seconds(),
            "error": json_or_null(self.error),
            "attempt": int(self.attempt),
            "restart_clock": self.restart_clock,
        }


class Load(NamedTuple):
    """What is out to a store for a tenant: steps and slices dispatched or worked on, and those that carry content."""

    requests: int
    carrying: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a dispatcher's turn needs to know.

    Attributes:
        now: by the database's clock.
        slots: what all live workers can send at once.
        claimed_through: the latest time of dispatch among messages that were claimed.
        last_ended: when the last worker ended, dead or stopped.
        next_due_s: seconds until the next waiting step or slice is due, negative if it is; None if none waits.
        abort_due: whether a cancelled job's last claim has ended and its abort is not handed out yet.
        waiting_stores: stores with an open breaker -> whether a probe is due.
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
    links: dict[str, Link]
    links_at: datetime | None
    in_flight: dict[tuple[str, str], Load]


def survey(tx: Tx, *, whole_bytes: int) -> Survey:
    """Look around, in one statement; files of at most ``whole_bytes`` may be sent by an init."""
    row = tx.execute(sql("survey"), {"whole_bytes": whole_bytes, "known_for_s": KNOWN_FOR_S}).fetchone() or {}
    return Survey(
        now=row["now"],
        slots=row["slots"],
        claimed_through=row["claimed_through"],
        last_ended=row["last_ended"],
        next_due_s=row["next_due_s"],
        abort_due=row["abort_due"],
        waiting_stores={breaker["store"]: breaker["due"] for breaker in row["breakers"]},
        links={
            link["store"]: Link(link["goodput_bytes_per_s"], link["answer_bytes"], link["answer_s"])
            for link in row["links"]
        },
        links_at=row["links_at"],
        in_flight={
            (lane["store"], lane["tenant"]): Load(lane["requests"], lane["carrying"]) for lane in row["in_flight"]
        },
    )


def due_steps(tx: Tx, *, per_lane: int, blocked: Sequence[str], whole_bytes: int) -> list[Row]:
    """Return the first due steps of every lane (store, tenant) but those of blocked stores."""
    params = {"per_lane": per_lane, "blocked": list(blocked), "whole_bytes": whole_bytes}
    return tx.execute(sql("due_steps"), params).fetchall()


def due_slices(tx: Tx, *, per_lane: int, window: int, blocked: Sequence[str]) -> list[Row]:
    """Return the first due slices of every lane, as many of each job as its window has room for."""
    params = {"per_lane": per_lane, "window": window, "blocked": list(blocked)}
    return tx.execute(sql("due_slices"), params).fetchall()


def start_worker(tx: Tx, worker: UUID, name: str, *, slots: int, roots: Sequence[str]) -> None:
    """Register a worker process under its random identity."""
    tx.execute(sql("start_worker"), {"id": worker, "name": name, "slots": slots, "roots": list(roots)})


def heartbeat(
    tx: Tx,
    worker: UUID,
    *,
    slots: int,
    roots: Sequence[str],
    claimed_through: datetime | None,
    links: list[Row] | None = None,
    sending: list[Row] | None = None,
) -> bool:
    """Say that the worker lives; False if it was taken for dead meanwhile and holds nothing any more.

    ``links``: the counters of its links, where they have changed. ``sending``: what is being sent, as
    `worker.tasks.sending_report` makes it; None for nothing.
    """
    params = {
        "id": worker,
        "slots": slots,
        "roots": list(roots),
        "claimed_through": claimed_through,
        "links": json_or_null(links),
        "sending": json_or_null(sending),
    }
    return tx.execute(sql("heartbeat"), params).fetchone() is not None


def reported_links(tx: Tx) -> list[tuple[UUID, list[Row]]]:
    """Return what each live worker has reported of its links."""
    return [(row["id"], row["links"]) for row in tx.execute(sql("reported_links"))]


def keep_links(tx: Tx, links: Mapping[str, Link]) -> None:
    """Store what was found out of these links, with the time."""
    rows = [{"store": store, **asdict(link)} for store, link in links.items()]
    tx.execute(sql("keep_links"), {"links": json.dumps(rows)})


def stop_worker(tx: Tx, worker: UUID) -> None:
    """Say that the worker has stopped of its own will: what it still held counts as no death."""
    tx.execute(sql("stop_worker"), {"id": worker})


def end_dead_workers(tx: Tx, dead_after_s: float) -> list[Row]:
    """End the workers that were silent for too long; returns their `id` and `name`."""
    return tx.execute(sql("end_workers"), {"dead_after_s": dead_after_s}).fetchall()


def lost_claims(tx: Tx, claims: Sequence[tuple[Claim, bool]], worker: UUID) -> set[tuple[UUID, int | None]]:
    """Return which of the claims may not go on, as (job, number): cancelled, superseded or of an older epoch.

    With each claim goes whether it is one of an abort, which a cancel does not end.
    """
    asked = [
        {
            "job_id": str(claim.job_id),
            "number": claim.number,
            "token": claim.token,
            "epoch": claim.epoch,
            "abort": abort,
        }
        for claim, abort in claims
    ]  # as one text, like the slices of a checkpoint
    params = {"claims": json.dumps(asked), "worker": worker}
    return {(row["job_id"], row["number"]) for row in tx.execute(sql("lost_claims"), params)}


def claim_history(tx: Tx, claim: Claim) -> Row:
    """Return what the decision about a claim's failure needs, of the columns of a claimed row; reads nothing else.

    Raises:
        StaleClaim: it is not held.
    """
    row = tx.execute(sql("claim_history"), claim.params()).fetchone()
    if row is None:
        raise StaleClaim(f"job {claim.job_id}: the claim with token {claim.token} is not held")
    return row


def adopted_by_size(tx: Tx, job_id: UUID, epoch: int) -> bool:
    """Say whether the session of this epoch holds slices that 0.1 took over without a proof of their content."""
    row = tx.execute(sql("adopted_by_size"), {"job": job_id, "epoch": epoch}).fetchone()
    return row is not None and bool(row["found"])


def lead(tx: Tx, holder: UUID, lead_s: float) -> int | None:
    """Lead the dispatch, or go on leading; returns the term, or None while another leads."""
    row = tx.execute(sql("lead"), {"holder": holder, "lead_s": lead_s}).fetchone()
    return None if row is None else int(row["term"])


def resign(tx: Tx, holder: UUID) -> None:
    """Stop leading at once."""
    tx.execute("UPDATE leadership SET until = now() WHERE name = 'dispatcher' AND holder = %s", [holder])


def open_breaker(tx: Tx, store: str, error: Row, probe_s: float) -> bool:
    """Let the store's jobs wait, but for a probe every ``probe_s`` seconds; says whether they did not before."""
    row = tx.execute(sql("open_breaker"), {"store": store, "error": Jsonb(error), "probe_s": probe_s}).fetchone()
    return row is not None and bool(row["opened"])


def close_breaker(tx: Tx, store: str) -> bool:
    """Let the store's jobs go on; says whether they waited."""
    return tx.execute(sql("close_breaker"), {"store": store}).fetchone() is not None


def note_probes(tx: Tx, stores: Sequence[str], probe_s: float) -> None:
    """Remember that a probe goes out to these stores now; the next one in ``probe_s`` seconds."""
    tx.execute(sql("probe"), {"stores": list(stores), "probe_s": probe_s})
