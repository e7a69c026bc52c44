"""Requests about jobs: the bodies that enqueue, and the queries of one job."""

import hashlib
import json
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Path, Query
from pydantic import Field

from api.schemas.base import (
    Flag,
    IdempotencyKey,
    JsonBody,
    QueryParameters,
    RetryFor,
    Text,
)
from api.schemas.sources import AnySource
from worker.jobs.admission import JobSpec
from worker.protocols.spec import (
    ATTRIBUTES_MAX_CHARS,
    BATCH_MAX_JOBS,
    LABEL_KEY_MAX_CHARS,
    LABEL_VALUE_MAX_CHARS,
    LABELS_MAX,
)
from worker.telemetry.tracing import parsed_traceparent

JobId = Annotated[UUID, Path(description="The job's id.")]
IdempotencyHeader = Annotated[
    IdempotencyKey | None,
    Header(description="The same request under the same key is the same job, as long as that job is kept."),
]


class JobRequest(JsonBody):
    """A file to upload."""

    source: AnySource
    store: Annotated[Text, Field(min_length=1, max_length=255)]
    key: Annotated[Text, Field(min_length=1, max_length=1024, description="Where the object goes.")]
    overwrite: Annotated[bool, Field(description="Whether an object that is there may be replaced.")] = False
    slice_size: Annotated[int | None, Field(description="Bytes; one of the sizes of the store's protocol.")] = None
    verify: Literal["auto", "size", "slice", "file"] = "auto"
    priority: Annotated[int, Field(ge=0, le=9, description="0 goes first.")] = 5
    attributes: Annotated[Annotated[Text, Field(max_length=ATTRIBUTES_MAX_CHARS)] | None, Field()] = None
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=LABEL_KEY_MAX_CHARS, pattern=r"^[^\x00:]*$")],
            Annotated[Text, Field(max_length=LABEL_VALUE_MAX_CHARS)],
        ],
        Field(max_length=LABELS_MAX, default_factory=dict),
    ]
    retry_for: Annotated[
        RetryFor | None, Field(description="Time in failure after which the job fails; at most 30 days.")
    ] = None
    callback_url: Annotated[None, Field(description="Not served yet.")] = None
    traceparent: Annotated[
        str | None,
        Field(description="The trace that the job belongs to, before that of the header; ignored if malformed."),
    ] = None

    def job_spec(self, idempotency_key: str | None, traceparent: str | None = None) -> JobSpec:
        """Return the job that is requested, as the admission takes it; ``traceparent`` is of the request around it."""
        return JobSpec(
            source=self.source,
            store=self.store,
            key=self.key,
            overwrite=self.overwrite,
            slice_bytes=self.slice_size,
            verify=self.verify,
            priority=self.priority,
            attributes=self.attributes,
            labels=self.labels,
            retry_for_s=self.retry_for,
            idempotency_key=idempotency_key,
            digest=None if idempotency_key is None else self._digest(),
            traceparent=parsed_traceparent(self.traceparent) or traceparent,
        )

    def _digest(self) -> bytes:
        """Return the SHA-256 of the request; a field with its default counts as left out.

        The trace is none of it: a client that repeats its request does so in a trace of that moment.
        """
        requested = self.model_dump(exclude_defaults=True, exclude={"idempotency_key", "traceparent"})
        return hashlib.sha256(json.dumps(requested, sort_keys=True, separators=(",", ":")).encode()).digest()


class BatchItem(JobRequest):
    """A file to upload, as one of many."""

    idempotency_key: IdempotencyKey | None = None


class ValidBatch(JsonBody):
    """A batch of which each item is valid."""

    jobs: Annotated[list[BatchItem], Field(min_length=1, max_length=BATCH_MAX_JOBS)]


class BatchRequest(JsonBody):
    """Many files to upload; each is judged by itself."""

    jobs: Annotated[
        list[Any],
        Field(min_length=1, max_length=BATCH_MAX_JOBS, description="Each a BatchItem; others are refused singly."),
    ]


class _Enqueue(QueryParameters):
    dry_run: Annotated[Flag, Field(description="Only say whether it would be accepted.")] = False


class _Wait(QueryParameters):
    wait: Annotated[
        str, Field(pattern=r"^([0-9]|[1-5][0-9]|60)s$", description="How long to wait for its end; at most `60s`.")
    ] = "0s"

    @property
    def seconds(self) -> int:
        """How long to wait."""
        return int(self.wait[:-1])


EnqueueQuery = Annotated[_Enqueue, Query()]
WaitQuery = Annotated[_Wait, Query()]
