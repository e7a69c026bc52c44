"""`sliceway why` and `sliceway jobs why`, against an API."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest


def put(serving: Any, tmp_path: Any) -> str:
    assert serving(f"put {tmp_path}/media/a.bin main:a --no-wait") == 0, serving.err
    return str(serving.out.strip())


def test_a_job_without_a_worker(serving: Any, tmp_path: Any) -> None:
    assert serving("why") == 0
    assert serving.out.splitlines()[0] == "0 jobs wait, 0 are under way."
    job = put(serving, tmp_path)
    assert serving(f"jobs why {job}") == 0
    head, reason, advice = serving.out.splitlines()
    assert head == f"Job {job} is queued, and waits:"
    assert reason == "  1. No worker process is alive."
    assert advice == "     Start one: `sliceway worker`."
    assert serving("why") == 0
    assert serving.out.splitlines()[:2] == ["1 job waits, 0 are under way.", "  1  No worker process is alive."]


def test_json(serving: Any, tmp_path: Any) -> None:
    job = put(serving, tmp_path)
    assert serving(f"jobs why {job} --json") == 0
    found = json.loads(serving.out)
    assert (found["id"], found["waits"], found["reasons"][0]["code"]) == (job, True, "no_worker")
    assert serving("why --json") == 0
    assert [(each["code"], each["jobs"]) for each in json.loads(serving.out)["reasons"]] == [("no_worker", 1)]
    assert serving(f"jobs cancel {job}") == 0
    assert serving(f"jobs why {job}") == 0
    assert serving.out == "The job has ended (cancelled): it waits for nothing.\n"


def test_a_job_that_is_not_there_is_one_line(serving: Any) -> None:
    missing = uuid.uuid4()
    serving.fails(f"jobs why {missing}", 1, f"there is no job {missing}")


@pytest.mark.parametrize("line", ["why", "jobs why 00000000-0000-7000-8000-000000000000"])
def test_without_a_key(sliceway: Any, line: str) -> None:
    sliceway.fails(line, 2, "SLICEWAY_API_KEY")
