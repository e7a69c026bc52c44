"""What the API returns about jobs: enqueued ones, a batch, one job, a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.problems import Problem, document
from api.views.base import Bytes, Failure, UtcDateTime
from api.views.waiting import Waiting, waiting_fields
from worker.errors import Refused
from worker.jobs import queries
from worker.jobs.states import JobState
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from api.state import AppState
    from worker.jobs.queries import InFlight
    from worker.jobs.submit import Accepted


class JobUrls(BaseModel):
    """Where to go on from a job."""

    self: str
    slices: str
    events: str
    why: str
    retry: str
    cancel: str


class JobAccepted(BaseModel):
    """A job that is kept; its state is `queued` unless the request was a repetition."""

    id: UUID
    tenant: str
    state: JobState
    store: str
    key: str
    urls: JobUrls


class JobChecked(BaseModel):
    """A request that would be accepted; nothing was kept of it."""

    dry_run: Literal[True]
    tenant: str
    store: str
    key: str
    job_id: Annotated[UUID | None, Field(description="The job that its idempotency key has made already.")]


class BatchResult(BaseModel):
    """What became of one item of a batch, with the status that it would have got alone: `job` or `problem`."""

    status: int
    job: JobAccepted | JobChecked | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """What became of each item, in the order of the request."""

    results: list[BatchResult]


class Progress(BaseModel):
    """How far it is; sizes are known once the file was opened. `percent` never falls but with a new epoch."""

    bytes_done: Annotated[Bytes, Field(description="Of slices that the store has.")]
    bytes_in_flight: Annotated[
        Bytes, Field(description="Acknowledged bytes of what is not done: on their way, or to be sent again.")
    ]
    size_bytes: Bytes | None
    slices_done: int | None
    slices_total: int | None
    percent: Annotated[float | None, Field(description="Done and in flight; 100 only once it has succeeded.")]


class JobView(BaseModel):
    """A job."""

    id: UUID
    tenant: str
    state: JobState
    priority: int
    epoch: Annotated[int, Field(description="Counts its fresh starts.")]
    source: dict[str, Any]
    store: str
    key: str
    overwrite: bool
    attributes: str | None
    labels: dict[str, str]
    verify: str
    slice_size: int | None
    retry_for_s: int
    idempotency_key: str | None
    progress: Progress
    throughput_bytes_per_s: Annotated[
        int | None, Field(description="Over the last seconds, in flight included; while it uploads.")
    ]
    eta_s: Annotated[int | None, Field(description="Remaining seconds at that throughput.")]
    attempts: int
    waiting: Waiting | None
    next_attempt_at: Annotated[
        UtcDateTime | None,
        Field(description="When what has failed is tried again; null where nothing waits for a time."),
    ]
    error: Failure | None
    result: dict[str, Any] | None
    created_at: UtcDateTime
    started_at: UtcDateTime | None
    updated_at: UtcDateTime
    finished_at: UtcDateTime | None
    urls: JobUrls


class JobList(BaseModel):
    """A page of jobs, newest first unless the oldest were asked for."""

    items: list[JobView]
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` for the next page; null at the end.")]


def _urls(root: str, job_id: UUID | str) -> dict[str, str]:
    job = f"{root}/v1/jobs/{job_id}"
    return {
        "self": job,
        "slices": f"{job}/slices",
        "events": f"{job}/events",
        "why": f"{job}/why",
        "retry": f"{job}/retry",
        "cancel": f"{job}/cancel",
    }


def job_accepted(job: Accepted, *, dry_run: bool, root: str) -> dict[str, Any]:
    """Return a `JobAccepted`, or the `JobChecked` of a dry run; as a dictionary: a model would cost too much."""
    job_id, place = str(job.id), {"tenant": job.tenant, "store": job.store, "key": job.key}
    if dry_run:
        return {"dry_run": True, **place, "job_id": job_id if job.replayed else None}
    return {"id": job_id, "state": job.state, **place, "urls": _urls(root, job_id)}


def batch_result(outcome: Accepted | Refused, *, dry_run: bool, root: str) -> dict[str, Any]:
    """Return a `BatchResult`."""
    if isinstance(outcome, Refused):
        return {"status": outcome.status, "problem": document(outcome)}
    return {"status": 200 if dry_run else 202, "job": job_accepted(outcome, dry_run=dry_run, root=root)}


def job_views(app_state: AppState, rows: Sequence[Row[Any]], rates: Mapping[UUID, int]) -> list[JobView]:
    """Return the views of jobs; ``rates`` are in bytes a second, of those that upload."""
    waiting = waiting_fields(app_state, rows)
    return [
        _job_view(row, rates.get(row.id), fields, app_state.root) for row, fields in zip(rows, waiting, strict=True)
    ]


def _job_view(row: Row[Any], rate: int | None, waiting: dict[str, Any], root: str) -> JobView:
    in_flight = queries.in_flight(row)
    missing = None if in_flight.size_bytes is None else in_flight.size_bytes - row.bytes_done - in_flight.live_bytes
    return JobView.model_validate(
        row._asdict()
        | {
            "progress": progress_of(row, in_flight),
            "throughput_bytes_per_s": rate,
            "eta_s": None if not rate or missing is None else -(-max(0, missing) // rate),
            "result": redact_json(row.result),
            "urls": _urls(root, row.id),
        }
        | waiting
    )


def progress_of(row: Row[Any], in_flight: InFlight) -> dict[str, Any]:
    """Return a job's `Progress`, by its row and its bytes in flight."""
    percent = None
    if row.state == JobState.SUCCEEDED:
        percent = 100.0
    elif in_flight.size_bytes is not None:
        acknowledged = row.bytes_done + in_flight.bytes
        # rounded down: 100 means that the store has the object
        percent = min(999, 1000 * acknowledged // max(1, in_flight.size_bytes)) / 10
    return {
        "bytes_done": row.bytes_done,
        "bytes_in_flight": in_flight.bytes,
        "size_bytes": in_flight.size_bytes,
        "slices_done": None if row.slices_total is None else row.slices_total - (row.slices_left or 0),
        "slices_total": row.slices_total,
        "percent": percent,
    }
