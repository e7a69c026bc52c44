"""The commands that act on jobs: one result a job, and an exit code that says whether any was refused."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.cli.test_commands import sql


@pytest.fixture
def jobs(serving: Any, tmp_path: Any) -> list[str]:
    """Three jobs that wait for a worker."""
    ids = []
    for name in ("a", "b", "c"):
        assert serving(f"put {tmp_path / 'media/a.bin'} main:{name} --no-wait") == 0
        ids.append(serving.out.strip())
    return ids


def test_one_job_is_answered_as_ever(serving: Any, jobs: list[str]) -> None:
    assert serving(f"jobs pause {jobs[0]} --reason 'a disk is changed'") == 0
    assert serving.out == f"{jobs[0]} queued\n"
    assert serving(f"jobs show {jobs[0]} --json") == 0
    assert json.loads(serving.out)["waiting"]["pause_reason"] == "a disk is changed"
    assert serving(f"jobs resume {jobs[0]} --json") == 0
    assert json.loads(serving.out) == {"id": jobs[0], "state": "queued", "changed": True}
    assert serving(f"jobs cancel {jobs[0]} --json") == 0
    assert json.loads(serving.out) == {"id": jobs[0], "state": "cancelled"}
    assert serving(f"jobs retry {jobs[0]} --from-scratch") == 0
    assert serving.out == f"{jobs[0]} queued\n"
    assert serving(f"jobs abandon {jobs[0]}") == 0
    assert serving.out == f"{jobs[0]} cancelled\n"
    serving.fails(f"jobs cancel {uuid4()}", 1, "there is no job")


def test_several_jobs_have_a_result_each(serving: Any, jobs: list[str], database_url: str) -> None:
    unknown = str(uuid4())
    assert serving(f"jobs priority {' '.join(jobs)} --to 0") == 0
    assert serving.out.splitlines() == [f"{job} queued" for job in jobs]
    assert {row["priority"] for row in sql(database_url, "SELECT priority FROM job")} == {0}
    assert serving(f"jobs pause {jobs[0]} {unknown} {jobs[1]} --reason x") == 1
    first, refused, second = serving.out.splitlines()
    assert (first, second) == (f"{jobs[0]} queued", f"{jobs[1]} queued")
    assert refused.startswith(f"{unknown} refused: not_found")
    assert "1 of 3 jobs were refused" in serving.err
    assert serving(f"jobs resume {jobs[0]} {unknown} --json") == 1
    done, missing = json.loads(serving.out)
    assert done == {"id": jobs[0], "state": "queued", "changed": True}
    assert (missing["id"], missing["problem"]["code"]) == (unknown, "not_found")
    failure = json.loads(serving.err)
    assert (failure["code"], failure["exit_code"]) == ("some_refused", 1)
    assert serving(f"jobs cancel {' '.join(jobs)}") == 0
    assert {row["state"] for row in sql(database_url, "SELECT state FROM job")} == {"cancelled"}


def test_a_start_prints_what_holds_the_job_back(serving: Any, jobs: list[str]) -> None:
    assert serving(f"jobs pause {jobs[0]} --reason maintenance") == 0
    assert serving(f"jobs start {jobs[0]}") == 0
    head, hold = serving.out.splitlines()
    assert head == f"{jobs[0]} queued"
    assert hold.strip().startswith("held back: job_paused since ")
    assert hold.endswith(": maintenance")


def test_without_an_answer_nothing_more_is_sent(serving: Any, jobs: list[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("SLICEWAY_API_URL", "http://127.0.0.1:1")
    serving.fails(f"jobs cancel {' '.join(jobs)}", 3, "cannot be reached")


def test_a_key_that_may_not_is_one_failure(serving: Any, jobs: list[str], monkeypatch: Any) -> None:
    assert serving("keys create --tenant acme --scope read") == 0
    monkeypatch.setenv("SLICEWAY_API_KEY", serving.out.strip())
    serving.fails(f"jobs cancel {' '.join(jobs)}", 1, "lacks the scope operate")


@pytest.mark.parametrize(
    "line", ["jobs cancel", "jobs priority 17 --to 1", "jobs priority {} --to 10", "jobs priority {}"]
)
def test_a_wrong_command_line_is_refused_before_a_request(sliceway: Any, line: str) -> None:
    sliceway.fails(line.format(uuid4()), 2, "--help")
