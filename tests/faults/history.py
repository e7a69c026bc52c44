"""What clients asked and were told, in a file that the checker reads: one JSON object a line, appended by anybody.

A question is written before it is asked and its answer after it was heard, so that whatever is cut off in between is
known as asked and never told. Threads and processes may share a file: each line is one write to a file opened for
appending.
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
    """What a client asks for."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    RETRY = "retry"
    READ = "read"
    PLANT_OBJECT = "plant_object"
    """Somebody else's object is put into the store."""
    PLANT_UPLOAD = "plant_upload"
    """Somebody else's upload is begun at the store."""


class Outcome(StrEnum):
    """What a client knows afterwards."""

    OK = "ok"
    REFUSED = "refused"
    """An answer that says that nothing was done."""
    UNKNOWN = "unknown"
    """No answer, or one that leaves it open: it may have happened."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes that a job is to upload, as they were when it was submitted. ``path`` is absolute."""

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
class Asked:
    """A question that is being asked; `told` says what came back."""

    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answer: Row = field(default_factory=dict)

    def told(
        self, status: int, *, job: str | None = None, state: str | None = None, session: str | None = None
    ) -> None:
        """Note the answer: its HTTP status, and the job's id and state or the upload's session where it names them."""
        self.ended = time.time()
        if status < httpx.codes.INTERNAL_SERVER_ERROR:
            self.outcome = Outcome.REFUSED if status >= httpx.codes.BAD_REQUEST else Outcome.OK
        told = {"status": status, "job": job, "state": state, "session": session}
        self.answer = {name: value for name, value in told.items() if value is not None}

    def heard(self, answer: httpx.Response) -> httpx.Response:
        """Note an answer of the API about one job, and return it."""
        said = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        self.told(answer.status_code, job=said.get("id"), state=said.get("state"))
        return answer


class Recorder:
    """Writes down what one client asks and is told.

    Args:
        file: Appended to; may be shared with other recorders, of this process and of others.
        client: Whose questions these are; what one client reads must be consistent in itself.
    """

    def __init__(self, file: Path, client: str = "client") -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._client = client

    def submitting(
        self, document: Row, source: Source, *, tenant: str = "acme", idempotency_key: str | None = None
    ) -> contextlib.AbstractContextManager[Asked]:
        """Ask for a job, with this document of `POST /v1/jobs` (or of one item of a batch).

        Use it as ``with recorder.submitting(…) as asked: asked.heard(api.post(…))``. Left without an answer, by an
        exception or otherwise, the outcome is unknown; the exception goes on.
        """
        wish = {"key": document["key"], "overwrite": bool(document.get("overwrite")), "tenant": tenant}
        bytes_of = {"path": source.path, "sha1": source.sha1, "size": source.size_bytes}
        return self._asking(Op.SUBMIT, document=document, idempotency_key=idempotency_key, **wish, **bytes_of)

    def cancelling(self, job: str) -> contextlib.AbstractContextManager[Asked]:
        """Ask to cancel a job."""
        return self._asking(Op.CANCEL, job=job)

    def retrying(self, job: str) -> contextlib.AbstractContextManager[Asked]:
        """Ask to retry a job."""
        return self._asking(Op.RETRY, job=job)

    def reading(self, job: str) -> contextlib.AbstractContextManager[Asked]:
        """Ask where a job stands; the answer's state is what counts."""
        return self._asking(Op.READ, job=job)

    def planting_object(self, key: str, content: bytes) -> contextlib.AbstractContextManager[Asked]:
        """Put somebody else's object into the store; nobody may touch it, but a job with `overwrite`."""
        sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return self._asking(Op.PLANT_OBJECT, key=key, sha1=sha1, size=len(content))

    def planting_upload(self, key: str) -> contextlib.AbstractContextManager[Asked]:
        """Begin somebody else's upload at the store; tell its session with ``asked.told(200, session=…)``."""
        return self._asking(Op.PLANT_UPLOAD, key=key)

    def changed(self, source: Source) -> None:
        """Note that a source has other bytes from now on: jobs of it may upload either."""
        self._write({"what": "changed", "path": source.path, "sha1": source.sha1, "size": source.size_bytes})

    def fault(self, name: str, **details: Any) -> None:
        """Note what was done to the system; `postgres` must be noted whenever the database was stopped hard."""
        self._write({"what": "fault", "name": name, "details": details})

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    @contextlib.contextmanager
    def _asking(self, op: Op, **fields: Any) -> Iterator[Asked]:
        ask, asked = uuid.uuid4().hex, Asked()
        given = {name: value for name, value in fields.items() if value is not None}
        self._write({"what": "asked", "ask": ask, "client": self._client, "op": op, **given})
        try:
            yield asked
        finally:
            self._write({"what": "told", "ask": ask, "outcome": asked.outcome, "ended": asked.ended, **asked.answer})

    def _write(self, line: Row) -> None:
        os.write(self._fd, json.dumps({"at": time.time(), **line}, separators=(",", ":")).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Operation:
    """A question and its answer. ``ended`` is None where none came; fields that it did not have are None."""

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
    """What was noted without a question: a fault, or a change of a source (``path``, ``sha1``, ``size``)."""

    at: float
    what: str
    name: str | None = None
    path: str | None = None
    sha1: str | None = None
    size: int | None = None


def read(files: Iterable[Path]) -> Iterator[Operation | Note]:
    """Read what was recorded, each question when its answer comes; those without any come last.

    A line that a crash of its writer has cut off is the last of its file, and passed over.
    """
    open_asks: dict[str, Row] = {}
    for line in (line for file in files for line in lines(file)):
        if line["what"] == "asked":
            open_asks[line["ask"]] = line
        elif line["what"] == "told":
            yield _ask(open_asks.pop(line["ask"]), line)
        else:
            yield Note(**{name: line[name] for name in Note.__slots__ if name in line})
    for asked in open_asks.values():
        yield _ask(asked, {"outcome": Outcome.UNKNOWN})


def lines(file: Path) -> Iterator[Row]:
    """Read a file of JSON lines, one at a time, but for a last one that is not whole."""
    with file.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _ask(asked: Row, told: Row) -> Operation:
    known = {name: value for name, value in (asked | told).items() if name in Operation.__slots__}
    known |= {"op": Op(asked["op"]), "outcome": Outcome(told["outcome"]), "ended": told.get("ended")}
    return Operation(began=asked["at"], **known)
