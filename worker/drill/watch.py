"""Reads from the database which workers can take over, and how far they have come. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.drill.canary import Death
    from worker.jobs.documents import ResultDocument
    from worker.jobs.retry import ErrorDocument

_OTHERS = """
  SELECT count(*) AS n FROM worker
  WHERE ended_at IS NULL AND heartbeat_at > now() - make_interval(secs => %(dead_after_s)s)
    AND %(root)s = ANY (roots) AND id IS DISTINCT FROM %(but)s"""
_RECOVERY = """
  SELECT j.state, j.epoch, j.error, j.result,
    (SELECT extract(epoch FROM ended_at - %(killed)s)::float8 FROM worker WHERE id = %(worker)s AND "end" = 'dead')
      AS noticed_s,
    extract(epoch FROM s.claimed_at - %(killed)s)::float8 AS taken_s,
    w.name AS taken_by,
    (SELECT extract(epoch FROM min(at) - %(killed)s)::float8 FROM event
     WHERE job_id = j.id AND kind = 'slices_done' AND at > %(killed)s) AS sent_s,
    extract(epoch FROM j.finished_at - %(killed)s)::float8 AS ended_s
  FROM job j
  LEFT JOIN slice s ON s.job_id = j.id AND s.number = %(number)s AND s.token > %(token)s
    AND s.state IN ('sending', 'done')
  LEFT JOIN worker w ON w.id = s.worker
  WHERE j.id = %(job)s"""
_JOBS = """
  SELECT id, key, state, epoch, slices_total, error, result FROM job
  WHERE labels @> %(labels)s AND labels <> '{}'::jsonb ORDER BY id DESC"""
_ENDED = "SELECT ended_at IS NOT NULL AS ended FROM worker WHERE id = %s"
_HELD = """
  SELECT (SELECT count(*) FROM slice WHERE state IN ('dispatched', 'sending')
            AND (job_id = ANY (%(jobs)s) OR state = 'sending' AND worker = %(worker)s))
       + (SELECT count(*) FROM job WHERE step IN ('dispatched', 'running')
            AND (id = ANY (%(jobs)s) OR step = 'running' AND worker = %(worker)s)) AS n"""


class DrillJob(NamedTuple):
    """A job that a drill has enqueued."""

    id: UUID
    key: str
    state: str
    epoch: int
    slices_total: int | None
    error: ErrorDocument | None
    result: ResultDocument | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How far the other workers have come. Times are seconds since the kill, by the database's clock.

    Attributes:
        state: state of the job.
        epoch: epoch of the job.
        error: error document of the job.
        result: result document of the job.
        noticed_s: when the dispatcher declared the canary dead.
        taken_s: when another worker claimed the canary's slice.
        taken_by: that worker's name.
        sent_s: when the last slice was recorded: an upper bound of ``taken_s``.
        ended_s: when the job ended.
    """

    state: str
    epoch: int
    error: ErrorDocument | None
    result: ResultDocument | None
    noticed_s: float | None
    taken_s: float | None
    taken_by: str | None
    sent_s: float | None
    ended_s: float | None


def others(tx: Connection, root: str, dead_after_s: float, *, but: UUID | None = None) -> int:
    """Return the number of live worker processes that can read the root."""
    return _count(tx, _OTHERS, {"root": root, "dead_after_s": dead_after_s, "but": but})


def clock(tx: Connection) -> datetime:
    """Return the database's time."""
    row = tx.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    moment: datetime = row["now"]
    return moment


def recovery(tx: Connection, death: Death, killed: datetime) -> Recovery:
    """Return how far the other workers have come with the canary's slice and its job."""
    params = {"worker": death.worker, "job": death.job, "number": death.number, "token": death.token}
    row = tx.execute(_RECOVERY, params | {"killed": killed}).fetchone()
    assert row is not None
    return Recovery(**row)


def jobs_of(tx: Connection, drill: str) -> list[DrillJob]:
    """Return a drill's jobs, newest first."""
    return [DrillJob(**row) for row in tx.execute(_JOBS, {"labels": Jsonb({"drill": drill})})]


def ended(tx: Connection, worker: UUID) -> bool:
    """Return whether the worker's row says that the worker has ended, for any reason."""
    row = tx.execute(_ENDED, [worker]).fetchone()
    return row is None or bool(row["ended"])


def held(tx: Connection, jobs: Collection[UUID], worker: UUID | None) -> int:
    """Return the number of steps and slices of these jobs, or of this worker, that are dispatched or leased."""
    return _count(tx, _HELD, {"jobs": list(jobs), "worker": worker})


def _count(tx: Connection, statement: str, params: Mapping[str, Any]) -> int:
    row = tx.execute(statement.encode(), params).fetchone()
    assert row is not None
    return int(row["n"])
