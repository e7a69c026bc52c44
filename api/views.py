"""What goes out as JSON."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

from api.problems import Problem, document
from api.progress import Bytes, Progress, progress_of
from worker.errors import Refused
from worker.jobs import queries
from worker.jobs.states import JobState, SliceState
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Row

    from worker.jobs.submit import Accepted

_Place = TypeVar("_Place", UUID, int)
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class JobUrls(BaseModel):
    """Where to go on from a job."""

    self: str
    slices: str
    events: str
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


class JobMoved(BaseModel):
    """The state that an action has led to."""

    id: UUID
    state: JobState


class Failure(BaseModel):
    """What went wrong last."""

    code: str
    message: str
    advice: str | None = None
    at: str | None = None
    answer: Annotated[str | None, Field(description="The store's own words.")] = None


class Waiting(BaseModel):
    """What a job waits for."""

    not_before: Moment | None
    failing_since: Moment | None
    paused_at: Moment | None
    pause_reason: str | None


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
        int | None, Field(description="Over the last seconds, in flight included; of one job, while it uploads.")
    ]
    eta_s: Annotated[int | None, Field(description="Remaining seconds at that throughput.")]
    attempts: int
    waiting: Waiting | None
    error: Failure | None
    result: dict[str, Any] | None
    created_at: Moment
    started_at: Moment | None
    updated_at: Moment
    finished_at: Moment | None
    urls: JobUrls


class JobList(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobView]
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` for the next page; null at the end.")]


class SliceView(BaseModel):
    """A contiguous range of the file."""

    number: int
    offset_bytes: Bytes
    size_bytes: Bytes
    state: SliceState
    attempts: Annotated[int, Field(description="Answers of the store that were this slice's own fault.")]
    sends: Annotated[int, Field(description="How often it was begun to be sent.")]
    not_before: Moment | None
    tag: str | None
    digest: str | None
    error: Failure | None
    done_at: Moment | None


class SliceList(BaseModel):
    """A page of slices, by number; after success their rows are folded into `summary`."""

    items: list[SliceView]
    summary: dict[str, Any] | None
    next_cursor: str | None


class EventView(BaseModel):
    """Something that happened to a job."""

    id: int
    at: Moment
    kind: str
    from_state: JobState | None
    to_state: JobState | None
    epoch: int
    actor: str
    cause: dict[str, Any] | None


class EventList(BaseModel):
    """A page of a job's history, oldest first."""

    items: list[EventView]
    next_cursor: str | None


def rendered(view: BaseModel) -> Response:
    """Return the answer that has the view as JSON; done where it is called, in a thread, and not on the event loop."""
    return Response(view.model_dump_json(), media_type="application/json")


def _urls(root: str, job_id: UUID | str) -> dict[str, str]:
    here = f"{root}/v1/jobs/{job_id}"
    return {
        "self": here,
        "slices": f"{here}/slices",
        "events": f"{here}/events",
        "retry": f"{here}/retry",
        "cancel": f"{here}/cancel",
    }


def accepted(job: Accepted, *, dry_run: bool, root: str) -> dict[str, Any]:
    """Return a `JobAccepted`, or the `JobChecked` of a dry run; as plain JSON, since this way has to be quick.

    URLs begin with ``root``, the path below which the API is published.
    """
    job_id, what = str(job.id), {"tenant": job.tenant, "store": job.store, "key": job.key}
    if dry_run:
        return {"dry_run": True, **what, "job_id": job_id if job.replayed else None}
    return {"id": job_id, "state": job.state, **what, "urls": _urls(root, job_id)}


def result(outcome: Accepted | Refused, *, dry_run: bool, root: str) -> dict[str, Any]:
    """Return a `BatchResult`."""
    if isinstance(outcome, Refused):
        return {"status": outcome.status, "problem": document(outcome)}
    return {"status": 200 if dry_run else 202, "job": accepted(outcome, dry_run=dry_run, root=root)}


def job_view(row: Row[Any], rate: int | None = None, *, wait: dict[str, Any], root: str) -> JobView:
    """Return a job as people see it; ``rate`` is in bytes a second, ``wait`` as `api.waiting` has it."""
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
        | wait
    )


def slice_view(row: Row[Any]) -> SliceView:
    """Return a slice as people see it."""
    return SliceView.model_validate(row._asdict() | {"error": redact_json(row.error)})


def event_view(row: Row[Any]) -> EventView:
    """Return an event as people see it."""
    return EventView.model_validate(row._asdict() | {"cause": redact_json(row.cause)})


def cursor(place: UUID | int) -> str:
    """Return the opaque text that stands for a place in a list."""
    return urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def job_after(cursor: str | None) -> UUID | None:
    """Return the job after which a page begins; None for the first page.

    Raises:
        Refused: ``bad_cursor``.
    """
    return None if cursor is None else _read(cursor, UUID)


def number_after(cursor: str | None) -> int:
    """Return the number after which a page begins.

    Raises:
        Refused: ``bad_cursor``.
    """
    place = -1 if cursor is None else _read(cursor, int)
    if not -1 <= place < 2**63:
        raise _bad_cursor()
    return place


def _read(cursor: str, kind: Callable[[str], _Place]) -> _Place:
    try:
        return kind(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
    except ValueError:
        raise _bad_cursor() from None


def _bad_cursor() -> Refused:
    return Refused("cursor is none of ours", code="bad_cursor", advice="Use next_cursor of the page before.")
