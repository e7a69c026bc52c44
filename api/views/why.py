"""What the API returns about why jobs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.views.base import UtcDateTime
from worker.jobs.states import FINAL, JobState
from worker.jobs.why_reasons import ReasonCode
from worker.telemetry.redact import redact, redact_json

if TYPE_CHECKING:
    from worker.jobs.why_reasons import WaitReason
    from worker.jobs.why_snapshot import JobWhy, QueueWhy


class WhyReason(BaseModel):
    """One reason."""

    code: Annotated[ReasonCode, Field(description="Stable: programs compare it.")]
    words: Annotated[str, Field(description="One sentence: what, which, since or until when.")]
    advice: Annotated[str | None, Field(description="What an operator can do; null where nothing is to be done.")]
    since: UtcDateTime | None
    until: Annotated[UtcDateTime | None, Field(description="When it ends, or is looked at again.")]
    data: Annotated[dict[str, Any], Field(description="Its figures and names; each code has its own.")]


class CountedReason(WhyReason):
    """A reason, and how many jobs wait for it first."""

    jobs: Annotated[int, Field(ge=0, description="0: no job waits for it first, and still it needs an operator.")]


class JobWhyView(BaseModel):
    """Why a job waits, in the order in which the reasons hold it back."""

    id: UUID
    state: JobState
    at: UtcDateTime
    waits: Annotated[bool, Field(description="False: it runs, or has ended.")]
    summary: str
    reasons: Annotated[list[WhyReason], Field(description="Of a job that runs the first says what runs.")]


class QueueWhyView(BaseModel):
    """What all live jobs that the key sees wait for, the most important first; each is counted once."""

    at: UtcDateTime
    waiting: Annotated[int, Field(ge=0)]
    running: Annotated[int, Field(ge=0)]
    reasons: list[CountedReason]


def _fields(reason: WaitReason) -> dict[str, Any]:
    return {
        "code": reason.code,
        "words": redact(reason.words),
        "advice": redact(reason.advice) or None,
        "since": reason.since,
        "until": reason.until,
        "data": redact_json(dict(reason.data)),
    }


def job_why_view(job_id: UUID, found: JobWhy) -> JobWhyView:
    """Return the view of why one job waits."""
    reasons = [WhyReason(**_fields(each)) for each in found.reasons]
    ended = found.state in FINAL
    summary = f"The job has ended ({found.state}): it waits for nothing." if ended else reasons[0].words
    waits = not ended and not found.runs
    return JobWhyView(id=job_id, state=found.state, at=found.at, waits=waits, summary=summary, reasons=reasons)


def queue_why_view(found: QueueWhy) -> QueueWhyView:
    """Return the view of what all jobs wait for."""
    reasons = [CountedReason(jobs=each.jobs, **_fields(each.reason)) for each in found.reasons]
    return QueueWhyView(at=found.at, waiting=found.waiting, running=found.running, reasons=reasons)
