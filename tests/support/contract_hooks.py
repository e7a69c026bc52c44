"""The hooks of Schemathesis for this API; it loads this file in a process of its own."""

from __future__ import annotations

import os
import re
import zlib
from typing import Any
from uuid import UUID

import schemathesis

JOBS = os.environ["CONTRACT_JOBS"].split()
"""The ids of some jobs that there are."""
ANY_ANSWER_HAS = frozenset({"connection", "content-length", "content-type", "date"})


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Have valid requests name what there is, mostly, and wait for no job."""
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    for job in _jobs(case.body):
        _make_acceptable(job)
    given = case.path_parameters.get("job_id")
    if isinstance(given, str) and re.fullmatch(r"[0-9a-f-]{36}", given) and UUID(given).int % 4:
        case.path_parameters["job_id"] = JOBS[UUID(given).int % len(JOBS)]
    if re.fullmatch(r"[1-5]?[0-9]s|60s", str((case.query or {}).get("wait"))):
        case.query["wait"] = "0s"


def _jobs(body: Any) -> list[dict[str, Any]]:
    """The jobs that a body asks for, as far as it is one that asks for jobs."""
    asked = body.get("jobs", [body]) if isinstance(body, dict) else []
    return [job for job in asked if isinstance(job, dict)] if isinstance(asked, list) else []


def _make_acceptable(job: dict[str, Any]) -> None:
    """Name a store, root, path and one of few keys that there are, mostly: what the description cannot say."""
    chance = hash_of(job)
    if chance % 4 and all(isinstance(job.get(name), str) for name in ("store", "key")):
        job |= {"store": "main", "key": f"videos/{chance % 97}"}
        if isinstance(job.get("source"), dict) and isinstance(job["source"].get("path"), str):
            job["source"] |= {"root": "media", "path": "a.mp4"}
        if job.get("verify") == "slice" or isinstance(job.get("slice_size"), int):
            job |= {"verify": "auto", "slice_size": 1048576}


def hash_of(job: dict[str, Any]) -> int:
    """The same in every run."""
    return zlib.crc32(repr(sorted(job)).encode() + repr(job.get("key")).encode(errors="replace"))


@schemathesis.check
def every_header_is_documented(_ctx: Any, response: Any, case: Any) -> None:
    """The answer has no header that its status is not documented to have."""
    if case.method.upper() != case.operation.method.upper():  # then the method is what is wrong
        return
    documented = case.operation.definition.raw["responses"].get(str(response.status_code), {}).get("headers", {})
    found = {name.lower() for name in response.headers} - {name.lower() for name in documented} - ANY_ANSWER_HAS
    assert not found, f"{response.status_code} has undocumented headers: {', '.join(sorted(found))}"
