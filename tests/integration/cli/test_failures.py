"""What the command line says and returns where something is wrong: for people in a line, for programs as JSON."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from worker.cli import progress
from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.local.postgres import EmbeddedPostgres

JOB = "01890000-0000-7000-8000-000000000000"
ACCEPTED = f'{{"id": "{JOB}", "state": "queued"}}'


@contextmanager
def stranger(*answers: tuple[int, str]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers so, the last of them again and again; gives its URL and the keys it was shown."""
    left, shown = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Idempotency-Key", ""))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", shown
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def elsewhere(installation: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with a key, whose proxy variables are of no use on loopback."""
    monkeypatch.setenv("SLICEWAY_API_KEY", "slw_fake-secret")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return installation


STRANGE = [
    (200, "[]"),
    (200, "{}"),
    (200, '{"items": [{}], "next_cursor": null}'),
    (200, "<html>It works!</html>"),
    (200, '{"status": "ready"}'),
    (301, ""),
    (404, '{"error": "not found"}'),
]


def test_a_stranger_is_said_to_be_one(elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for answer in STRANGE:
        with stranger(answer) as (url, _):
            monkeypatch.setenv("SLICEWAY_API_URL", url)
            for line in ("jobs list", f"jobs show {JOB}", f"jobs cancel {JOB}", f"put {tmp_path}/media/a.bin main:a"):
                elsewhere.fails(line, 3, "is not the API", "SLICEWAY_API_URL")


@pytest.mark.parametrize("answer", [(503, "<html>502</html>"), (200, "<html>It works!</html>")])
def test_whatever_ends_following_an_upload_says_that_it_goes_on(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: tuple[int, str]
) -> None:
    monkeypatch.setattr(progress, "FOLLOW_FOR_S", 0)
    with stranger((202, ACCEPTED), answer) as (url, _):
        monkeypatch.setenv("SLICEWAY_API_URL", url)
        elsewhere.fails(f"put {tmp_path}/media/a.bin main:a", 3, f"goes on as job {JOB}", f"jobs show {JOB}")


def test_put_is_sent_again_under_its_key_until_the_api_can_take_it(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = json.dumps({"detail": "too much", "code": "overloaded", "advice": "Wait.", "status": 429})
    with stranger((503, "<html>502</html>"), (429, busy), (500, "[]"), (202, ACCEPTED)) as (url, keys):
        monkeypatch.setenv("SLICEWAY_API_URL", url)
        assert elsewhere(f"put {tmp_path}/media/a.bin main:a --no-wait") == 0
        assert elsewhere.out.strip() == JOB
        assert (len(keys), len(set(keys))) == (4, 1)
        assert elsewhere.err.count("sliceway: too much; waiting") == 1


def test_a_failure_is_a_problem_document_where_json_is_asked_for(
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
        with stranger((status, json.dumps(problem))) as (url, _):
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
    shown = sliceway.out
    assert sliceway.err == ""
    assert sliceway(f"{line} --help") == 0
    assert sliceway.out == shown
    assert "Commands:" in shown.splitlines()


@pytest.mark.parametrize("line", ["--version", "-V", "version"])
def test_the_version_is_printed(sliceway: Any, line: str) -> None:
    assert sliceway(line) == 0
    assert sliceway.out.startswith("sliceway")


def test_put_waits_out_a_restart_of_the_database(serving: Any, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Before the job is accepted, and while it is followed."""
    url = os.environ["SLICEWAY_DATABASE_URL"]
    argv = [sys.executable, "-m", "worker.cli", "put", str(tmp_path / "media/a.bin"), "main:a"]

    def put() -> subprocess.Popen[str]:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0)

    def away_and_back(process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        assert "waiting up to" in process.stderr.readline()
        postgres.start()

    assert serving
    postgres.stop("immediate")
    process = put()
    away_and_back(process)
    pause = threading.Event()
    while not job_ids(url):
        assert process.poll() is None
        pause.wait(0.05)
    postgres.stop("immediate")
    away_and_back(process)
    with closing(Database(url)) as database, database.connection() as connection:
        connection.execute("UPDATE job SET state = 'succeeded', step = 'idle', size_bytes = 1, finished_at = now()")
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert "has all 1 bytes" in out


def job_ids(url: str) -> list[Any]:
    with closing(Database(url)) as database, database.connection() as connection:
        return connection.execute("SELECT id FROM job").fetchall()
