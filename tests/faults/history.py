"""The history of a run: the operations of its clients and their answers, in a file for the checker.

A recorder writes an operation before its request is sent, and the answer after it has arrived: the checker also knows
operations without an answer. The file has one JSON object a line. Threads and processes may share it: each line is one
write to a file opened for appending.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Row = dict[str, Any]


class Op(StrEnum):
    """A client's operation."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    RETRY = "retry"
    READ = "read"
    PLANT_OBJECT = "plant_object"
    """Another client puts an object into the store."""
    PLANT_UPLOAD = "plant_upload"
    """Another client begins an upload at the store."""


class Outcome(StrEnum):
    """What the client knows after an operation."""

    OK = "ok"
    REFUSED = "refused"
    """The answer says that the operation had no effect."""
    UNKNOWN = "unknown"
    """There was no answer, or the answer leaves it open: the operation may have had its effect."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes that a job should upload, as they were when it was submitted. ``path`` is absolute."""

    path: str
    sha1: str
    size_bytes: int

    @classmethod
    def of(cls, file: Path) -> Source:
        """Read a file."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False))
        return cls(str(file), digest.hexdigest(), file.stat().st_size)


@dataclass
class PendingOperation:
    """An operation without an answer so far."""

    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answer: Row = field(default_factory=dict)

    def answered(
        self, status: int, *, job: str | None = None, state: str | None = None, session: str | None = None
    ) -> None:
        """Record the answer: its HTTP status, and the job's id and state or the upload's session if it has them."""
        self.ended = time.time()
        if status < httpx.codes.INTERNAL_SERVER_ERROR:
            self.outcome = Outcome.REFUSED if status >= httpx.codes.BAD_REQUEST else Outcome.OK
        fields = {"status": status, "job": job, "state": state, "session": session}
        self.answer = {name: value for name, value in fields.items() if value is not None}

    def record(self, answer: httpx.Response) -> httpx.Response:
        """Record an answer of the API about one job, and return it."""
        body = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        self.answered(answer.status_code, job=body.get("id"), state=body.get("state"))
        return answer


class Recorder:
    """Records the operations of one client.

    Args:
        file: To append to; other recorders, of this process and of others, may share it.
        client: The client's name; the reads of one client must be consistent.
    """

    def __init__(self, file: Path, client: str = "client") -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._client = client

    def submitting(
        self, document: Row, source: Source, *, tenant: str = "acme", idempotency_key: str | None = None
    ) -> contextlib.AbstractContextManager[PendingOperation]:
        """Submit a job, with this document of `POST /v1/jobs` (or of one item of a batch).

        Use it as ``with recorder.submitting(…) as pending: pending.record(api.post(…))``. Without an answer the outcome
        is unknown; an exception propagates.
        """
        target = {"key": document["key"], "overwrite": bool(document.get("overwrite")), "tenant": tenant}
        content = {"path": source.path, "sha1": source.sha1, "size": source.size_bytes}
        return self._operation(Op.SUBMIT, document=document, idempotency_key=idempotency_key, **target, **content)

    def cancelling(self, job: str) -> contextlib.AbstractContextManager[PendingOperation]:
        """Cancel a job."""
        return self._operation(Op.CANCEL, job=job)

    def retrying(self, job: str) -> contextlib.AbstractContextManager[PendingOperation]:
        """Retry a job."""
        return self._operation(Op.RETRY, job=job)

    def reading(self, job: str) -> contextlib.AbstractContextManager[PendingOperation]:
        """Read a job's state."""
        return self._operation(Op.READ, job=job)

    def planting_object(self, key: str, content: bytes) -> contextlib.AbstractContextManager[PendingOperation]:
        """Put another client's object into the store; only a job with `overwrite` may replace it."""
        sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return self._operation(Op.PLANT_OBJECT, key=key, sha1=sha1, size=len(content))

    def planting_upload(self, key: str) -> contextlib.AbstractContextManager[PendingOperation]:
        """Begin another client's upload at the store; record its session with ``pending.answered(200, session=…)``."""
        return self._operation(Op.PLANT_UPLOAD, key=key)

    def changed(self, source: Source) -> None:
        """Record that a source has other bytes from now on: its jobs may upload either."""
        self._write({"what": "changed", "path": source.path, "sha1": source.sha1, "size": source.size_bytes})

    def fault(self, name: str, **details: Any) -> None:
        """Record a fault; `postgres` must be recorded whenever the database was stopped at once."""
        self._write({"what": "fault", "name": name, "details": details})

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @contextlib.contextmanager
    def _operation(self, op: Op, **fields: Any) -> Iterator[PendingOperation]:
        id_, pending = uuid.uuid4().hex, PendingOperation()
        given = {name: value for name, value in fields.items() if value is not None}
        self._write({"what": "request", "id": id_, "client": self._client, "op": op, **given})
        try:
            yield pending
        finally:
            result = {"outcome": pending.outcome, "ended": pending.ended, **pending.answer}
            self._write({"what": "answer", "id": id_, **result})

    def _write(self, line: Row) -> None:
        os.write(self._fd, json.dumps({"at": time.time(), **line}, separators=(",", ":")).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation and its answer. ``ended`` is None without an answer; fields that it does not have are None."""

    client: str
    op: Op
    began: float
    ended: float | None
    outcome: Outcome
    status: int | None = None
    job: str | None = None
    state: str | None = None
    session: str | None = None
    tenant: str | None = None
    key: str | None = None
    overwrite: bool | None = None
    idempotency_key: str | None = None
    path: str | None = None
    sha1: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A fault, or a change of a source (``path``, ``sha1``, ``size``)."""

    at: float
    what: str
    name: str | None = None
    path: str | None = None
    sha1: str | None = None
    size: int | None = None


def read(files: Iterable[Path]) -> Iterator[Operation | Note]:
    """Read histories, each operation at its answer; operations without an answer come last."""
    pending: dict[str, Row] = {}
    for line in (line for file in files for line in lines(file)):
        if line["what"] == "request":
            pending[line["id"]] = line
        elif line["what"] == "answer":
            yield _operation(pending.pop(line["id"]), line)
        else:
            yield Note(**{name: line[name] for name in Note.__slots__ if name in line})
    for request in pending.values():
        yield _operation(request, {"outcome": Outcome.UNKNOWN})


def lines(file: Path) -> Iterator[Row]:
    """Read a file of JSON lines, one at a time; skip a last line that a crash of its writer has cut off."""
    with file.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _operation(request: Row, answer: Row) -> Operation:
    fields = {name: value for name, value in (request | answer).items() if name in Operation.__slots__}
    fields |= {"op": Op(request["op"]), "outcome": Outcome(answer["outcome"]), "ended": answer.get("ended")}
    return Operation(began=request["at"], **fields)
