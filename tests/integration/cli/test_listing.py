"""`jobs list` with filters, counts and --watch; `jobs events` and `jobs slices`."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Any

import pytest

from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GONE = '{"code": "source_gone", "message": "it is gone", "advice": "Put it back.", "at": "2026-01-01T00:00:00Z"}'
WAIT_S = 120
"""Only a failure takes so long."""


def sql(url: str, statement: str) -> list[dict[str, Any]]:
    with closing(Database(url)) as database, database.connection() as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def jobs(serving: Any, tmp_path: Path, database_url: str) -> list[str]:
    """Three jobs: the first has failed, and is two hours old."""
    found = []
    for key, more in (("a", "--label order=17"), ("b", "--label order=18"), ("videos/c", "")):
        assert serving(f"put {tmp_path}/media/a.bin main:{key} --no-wait {more}") == 0
        found.append(serving.out.strip())
    sql(
        database_url,
        f"UPDATE job SET state = 'failed', step = 'idle', finished_at = now(), error = '{GONE}',"  # noqa: S608 - ours
        f" failure_code = 'source_gone', created_at = now() - interval '2 h' WHERE id = '{found[0]}'",
    )
    return found


def listed(serving: Any, options: str) -> list[str]:
    assert serving(f"jobs list --json {options}") == 0, serving.err
    return [view["id"] for view in json.loads(serving.out)]


def test_filters_are_options_or_a_query(serving: Any, jobs: list[str]) -> None:
    old, second, third = jobs
    assert listed(serving, "") == [third, second, old]
    assert listed(serving, "--order oldest") == [old, second, third]
    for options in (
        "--state failed",
        "--error-code source_gone",
        "--older-than 1h",
        "--label order=17",
        "--filter 'state=failed&store=main&label.order=17&error_code=source_gone&older_than=1h'",
        "--filter label.order=17 --state failed",
    ):
        assert listed(serving, options) == [old], options
    assert listed(serving, "--since 1h") == listed(serving, "--filter since=1h") == [third, second]
    assert listed(serving, "--since 2000-01-01 --key-prefix videos/") == [third]
    assert listed(serving, "--since 1h --older-than 1h") == []


def test_a_row_has_age_tenant_and_reason(serving: Any, jobs: list[str]) -> None:
    assert serving("jobs list --order oldest --limit 1") == 0
    head, row = serving.out.splitlines()
    assert head.split() == ["ID", "STATE", "AGE", "DONE", "BYTES", "RATE", "TENANT", "TARGET", "REASON"]
    assert row.split() == [jobs[0], "failed", "2h", "acme", "main:a", "source_gone"]


def test_jobs_are_counted(serving: Any, jobs: list[str]) -> None:
    assert serving("jobs list --count") == 0
    assert serving.out == f"{len(jobs)}\n"
    assert serving("jobs list --count --state failed --exact") == 0
    assert serving.out == "1\n"
    assert serving("jobs list --group-by state") == 0
    assert [line.split() for line in serving.out.splitlines()] == [["VALUE", "JOBS"], ["queued", "2"], ["failed", "1"]]
    assert serving("jobs list --group-by label.order --json") == 0
    found = json.loads(serving.out)
    assert {group["value"]: group["count"] for group in found["groups"]} == {"17": 1, "18": 1, None: 1}
    assert (found["total"], found["approximate"]) == (3, False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("jobs list --older-than soon", "older_than: must be a number and s, m, h or d"),
        ("jobs list --since soon", "'soon' is neither a duration such as 24h nor a date"),
        ("jobs list --filter stat=failed", "stat: is not known; the nearest is state"),
        ("jobs list --filter store=a --store b", "store: is given twice"),
    ],
)
def test_a_wrong_filter_is_one_line_and_no_request(sliceway: Any, line: str, says: str) -> None:
    sliceway.fails(line, 2, says, "sliceway jobs list --help")


def test_a_wrong_grouping_is_one_line(serving: Any) -> None:
    serving.fails("jobs list --group-by colour", 1, "group_by: ")


def test_events_and_slices_are_listed(serving: Any, jobs: list[str], database_url: str) -> None:
    assert serving(f"jobs cancel {jobs[1]}") == 0
    assert serving(f"jobs events {jobs[1]}") == 0
    head, *rows = serving.out.splitlines()
    assert head.split() == ["AT", "KIND", "FROM", "TO", "EPOCH", "ACTOR", "CAUSE"]
    assert [row.split()[1] for row in rows] == ["enqueued", "cancel_requested", "cancelled"]
    assert serving(f"jobs events {jobs[1]} --limit 2 --json") == 0
    assert [event["kind"] for event in json.loads(serving.out)] == ["enqueued", "cancel_requested"]
    [cursor] = re.findall(r"`--cursor (\S+)`", serving.err)
    assert serving(f"jobs events {jobs[1]} --cursor {cursor} --json") == 0
    assert [event["kind"] for event in json.loads(serving.out)] == ["cancelled"]
    sql(
        database_url,
        "INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, error)"  # noqa: S608 - ours
        f" SELECT '{jobs[2]}', n, n * 1000, 1000, 'pending', 0, '{GONE}' FROM generate_series(0, 2) n",
    )
    assert serving(f"jobs slices {jobs[2]}") == 0
    head, *rows = serving.out.splitlines()
    assert head.split() == ["NUMBER", "OFFSET", "BYTES", "STATE", "ATTEMPTS", "SENDS", "DONE", "AT", "ERROR"]
    assert rows[2].split() == ["2", "2,000", "1,000", "pending", "0", "0", "source_gone:", "it", "is", "gone"]
    assert serving(f"jobs slices {jobs[2]} --json") == 0
    found = json.loads(serving.out)
    assert ([each["number"] for each in found["items"]], found["summary"]) == ([0, 1, 2], None)
    summary = '{"size_bytes": 1, "slices": {"slices": 3, "sends": 4}}'
    sql(
        database_url,
        "WITH gone AS (DELETE FROM slice) UPDATE job SET state = 'succeeded', step = 'idle', finished_at = now(),"  # noqa: S608
        f" result = '{summary}' WHERE id = '{jobs[2]}'",
    )
    assert serving(f"jobs slices {jobs[2]}") == 0
    assert serving.out == "The job has succeeded: sends 4, slices 3\n"
    assert serving(f"jobs slices {jobs[2]} --json") == 0
    assert json.loads(serving.out) == {"items": [], "summary": {"slices": 3, "sends": 4}}
    none = "01890000-0000-7000-8000-000000000000"
    for command in ("events", "slices"):
        serving.fails(f"jobs {command} {none}", 1, f"there is no job {none}")


@contextmanager
def watching(*options: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "worker.cli", "jobs", "list", "--watch", "--every", "1", *options]
    watch = subprocess.Popen(argv, env=dict(os.environ), stdout=stdout, stderr=subprocess.PIPE, text=True)
    try:
        yield watch
    finally:
        watch.kill()
        watch.communicate()


def line(stream: IO[str]) -> str:
    assert select.select([stream], [], [], WAIT_S)[0], "no line came"
    return stream.readline()


def ends_by_ctrl_c(watch: subprocess.Popen[str]) -> None:
    watch.send_signal(signal.SIGINT)
    assert watch.wait(WAIT_S) == 0
    assert watch.stderr is not None
    assert watch.stderr.read() == ""


def test_a_watch_in_a_pipe_prints_a_line_for_each_change(serving: Any, jobs: list[str]) -> None:
    with watching("--order", "oldest", "--limit", "1") as watch:
        assert watch.stdout is not None
        assert line(watch.stdout).split()[1:3] == [jobs[0], "failed"]
        assert serving(f"jobs retry {jobs[0]}") == 0
        assert line(watch.stdout).split()[1:3] == [jobs[0], "queued"]
        ends_by_ctrl_c(watch)
    with watching("--group-by", "state", "--json") as watch:
        assert watch.stdout is not None
        assert json.loads(line(watch.stdout))["groups"] == [{"value": "queued", "count": 3}]
        assert serving(f"jobs cancel {jobs[0]}") == 0
        found = json.loads(line(watch.stdout))
        assert found["groups"] == [{"value": "queued", "count": 2}, {"value": "cancelled", "count": 1}]
        ends_by_ctrl_c(watch)
    with watching("--count") as watch:
        assert watch.stdout is not None
        assert line(watch.stdout).split()[1:] == ["queued=2", "cancelled=1", "total=3"]


@pytest.mark.parametrize(("options", "says"), [((), "main:videos/c"), (("--group-by", "state"), "total 3")])
def test_a_watch_on_a_terminal_redraws_it(jobs: list[str], options: tuple[str, ...], says: str) -> None:
    assert len(jobs) == 3
    ours, theirs = pty.openpty()
    try:
        with watching(*options, stdout=theirs) as watch:
            seen = ""
            while seen.count("\x1b[2J") < 3:
                assert select.select([ours], [], [], WAIT_S)[0], "nothing was drawn"
                seen += os.read(ours, 65536).decode()
            assert seen.split("\x1b[2J")[2].count(says) == 1
            ends_by_ctrl_c(watch)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_watch_outlives_a_database_that_is_away_for_a_moment(
    serving: Any, jobs: list[str], database_url: str
) -> None:
    name = database_url.rpartition("/")[2]
    server = database_url.removesuffix(name) + "postgres"
    with watching("--limit", "1") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert jobs[2] in line(watch.stdout)
        sql(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        sql(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
        assert "waiting up to 300 s" in line(watch.stderr)
        sql(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert serving(f"jobs cancel {jobs[2]}") == 0
        assert "cancelled" in line(watch.stdout)
