"""The messages and exit codes of failed commands: one line for people, JSON for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.other_server import other_server
from worker.cli import progress
from worker.db.pool import Database

if TYPE_CHECKING:
    from pathlib import Path

    from worker.local.postgres import EmbeddedPostgres

JOB = "01890000-0000-7000-8000-000000000000"
ACCEPTED = f'{{"id": "{JOB}", "state": "queued"}}'


@pytest.fixture
def elsewhere(installation: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with a key, whose proxy variables are of no use on loopback."""
    monkeypatch.setenv("SLICEWAY_API_KEY", "slw_fake-secret")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return installation


NOT_OF_THE_API = [
    (200, "[]"),
    (200, "{}"),
    (200, '{"items": [{}], "next_cursor": null}'),
    (200, "<html>It works!</html>"),
    (200, '{"status": "ready"}'),
    (301, ""),
    (404, '{"error": "not found"}'),
]


def test_another_server_is_reported(elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for answer in NOT_OF_THE_API:
        with other_server(answer) as (url, _):
            monkeypatch.setenv("SLICEWAY_API_URL", url)
            for line in ("jobs list", f"jobs show {JOB}", f"jobs cancel {JOB}", f"put {tmp_path}/media/a.bin main:a"):
                elsewhere.fails(line, 3, "is not the API", "SLICEWAY_API_URL")


@pytest.mark.parametrize("answer", [(503, "<html>502</html>"), (200, "<html>It works!</html>")])
def test_a_put_that_cannot_follow_reports_that_the_upload_goes_on(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: tuple[int, str]
) -> None:
    monkeypatch.setattr(progress, "FOLLOW_FOR_S", 0)
    with other_server((202, ACCEPTED), answer) as (url, _):
        monkeypatch.setenv("SLICEWAY_API_URL", url)
        elsewhere.fails(f"put {tmp_path}/media/a.bin main:a", 3, f"goes on as job {JOB}", f"jobs show {JOB}")


def test_put_repeats_the_request_with_its_key_until_the_api_accepts_it(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = json.dumps({"detail": "too much", "code": "overloaded", "advice": "Wait.", "status": 429})
    with other_server((503, "<html>502</html>"), (429, busy), (500, "[]"), (202, ACCEPTED)) as (url, requests):
        monkeypatch.setenv("SLICEWAY_API_URL", url)
        assert elsewhere(f"put {tmp_path}/media/a.bin main:a --no-wait") == 0
        assert elsewhere.out.strip() == JOB
        assert (len(requests), len({headers["Idempotency-Key"] for headers in requests})) == (4, 1)
        assert elsewhere.err.count("sliceway: too much; waiting") == 1


def test_with_json_a_failure_is_a_problem_document(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failed(line: str) -> tuple[int, dict[str, Any]]:
        code = elsewhere(line)
        document = json.loads(elsewhere.err)
        assert {"type", "detail", "code", "advice"} <= set(document)
        assert document["exit_code"] == code
        return code, document

    busy = {"detail": "busy", "code": "key_busy", "advice": "Wait.", "status": 409, "job_id": "17"}
    away = {"detail": "away", "code": "database_unavailable", "advice": "Wait.", "status": 503}
    monkeypatch.setattr(progress, "ENQUEUE_FOR_S", 0)
    for status, problem, code in ((409, busy, 1), (503, away, 3)):
        with other_server((status, json.dumps(problem))) as (url, _):
            monkeypatch.setenv("SLICEWAY_API_URL", url)
            assert failed(f"put {tmp_path}/media/a.bin main:a --json")[0] == code
            found = failed("jobs list --json")[1]
            assert {name: found[name] for name in problem} == problem
    monkeypatch.setenv("SLICEWAY_API_URL", "http://127.0.0.1:1")
    assert failed("jobs list --json")[1]["code"] == "unreachable"
    assert failed("jobs list --json --nope")[0] == 2
    monkeypatch.setenv("SLICEWAY_API_URL", "http://fake-secret@x")
    assert failed("jobs list --json")[1]["code"] == "bad_settings"


def test_a_proxy_that_is_not_served_is_a_wrong_setting(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEWAY_API_URL", "http://api.example")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    elsewhere.fails("jobs list", 2, "http_proxy is wrong", "socks5 is not served")


def test_a_name_that_is_not_utf_8_is_refused_by_name(elsewhere: Any) -> None:
    name = os.fsdecode(b"caf\xe9.mov")
    for line in (f"put {name} main:a", f"put x main:{name}", f"jobs list --label a={name}"):
        elsewhere.fails(line, 2, r"caf\xe9.mov is not UTF-8")


@pytest.mark.parametrize("line", ["", "jobs", "keys", "stores"])
def test_a_group_alone_shows_its_help(sliceway: Any, line: str) -> None:
    assert sliceway(line) == 0
    help_text = sliceway.out
    assert sliceway.err == ""
    assert sliceway(f"{line} --help") == 0
    assert sliceway.out == help_text
    assert "Commands:" in help_text.splitlines()


@pytest.mark.parametrize("line", ["--version", "-V", "version"])
def test_the_version_is_printed(sliceway: Any, line: str) -> None:
    assert sliceway(line) == 0
    assert sliceway.out.startswith("sliceway")


def test_put_waits_out_a_restart_of_the_database(serving: Any, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Before the API accepts the job, and while the command follows it."""
    url = os.environ["SLICEWAY_DATABASE_URL"]
    argv = [sys.executable, "-m", "worker.cli", "put", str(tmp_path / "media/a.bin"), "main:a"]

    def put() -> subprocess.Popen[str]:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0)

    def restart(process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        assert "waiting up to" in process.stderr.readline()
        postgres.start()

    assert serving
    postgres.stop("immediate")
    process = put()
    restart(process)
    pause = threading.Event()
    while not job_ids(url):
        assert process.poll() is None
        pause.wait(0.05)
    postgres.stop("immediate")
    restart(process)
    with closing(Database(url)) as database, database.connection() as connection:
        connection.execute("UPDATE job SET state = 'succeeded', step = 'idle', size_bytes = 1, finished_at = now()")
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert "has all 1 bytes" in out


def job_ids(url: str) -> list[Any]:
    with closing(Database(url)) as database, database.connection() as connection:
        return connection.execute("SELECT id FROM job").fetchall()
