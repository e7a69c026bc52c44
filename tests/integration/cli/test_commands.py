"""Every command works, or fails with one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.cli import progress
from worker.db.pool import Database
from worker.jobs.api_keys import find_key

if TYPE_CHECKING:
    from pathlib import Path

    from worker.local.postgres import EmbeddedPostgres


def sql(url: str, statement: str) -> list[dict[str, Any]]:
    with closing(Database(url)) as database, database.connection() as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def reads_jobs(url: str) -> bool:
    """Whether the API's last statement read a job."""
    sessions = sql(url, "SELECT query FROM pg_stat_activity WHERE application_name = 'sliceway api'")
    return any("progress" in row["query"] or "job.id" in row["query"] for row in sessions)


def test_help_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys, worker.cli.main as c; c.run(['--help']); c.run(['jobs', 'list', '--help']);"
        "print(sorted({'httpx', 'pydantic', 'sqlalchemy', 'celery', 'rich', 'psycopg', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 done" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("nope", 2, "nope"),
        ("put", 2, "sliceway put --help"),
        ("put {file} main", 2, "STORE:KEY"),
        ("put {file} main:a --label x", 2, "NAME=VALUE"),
        ("put {file} main:a", 2, "SLICEWAY_STORES_FILE"),
        ("put /nowhere main:a", 1, "there is no file /nowhere"),
        ("jobs list", 2, "SLICEWAY_API_KEY"),
        ("jobs show 17", 2, "17"),
        ("keys list", 2, "SLICEWAY_DATABASE_URL"),
        ("keys create", 2, "--tenant"),
        ("migrate", 2, "SLICEWAY_DATABASE_URL"),
        ("stores check", 2, "SLICEWAY_DATABASE_URL"),
        ("worker", 2, "SLICEWAY_DATABASE_URL"),
        ("flower", 2, "SLICEWAY_DATABASE_URL"),
    ],
)
def test_a_mistake_is_one_line(sliceway: Any, tmp_path: Path, line: str, code: int, says: str) -> None:
    (tmp_path / "a").touch()
    sliceway.fails(line.format(file=tmp_path / "a"), code, says)


@pytest.mark.parametrize("line", ["worker", "flower", "migrate", "keys list", "stores check", "jobs list", "doctor"])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "mysql://u:fake-secret-1@h/d"),
        ("BROKER_URL", "redis://:fake-secret-1@h:many/0"),
        ("API_URL", "http://u:fake-secret-1@h"),
    ],
)
def test_a_wrong_url_is_a_wrong_setting_of_every_role(
    installation: Any, monkeypatch: pytest.MonkeyPatch, line: str, name: str, url: str
) -> None:
    monkeypatch.setenv("SLICEWAY_API_KEY", "fake-key")
    monkeypatch.setenv(f"SLICEWAY_{name}", url)
    if line == "doctor":
        assert installation(line) == 1
        assert f"SLICEWAY_{name} is wrong" in installation.out
    elif line != "jobs list" or name == "API_URL":  # it reads no other setting
        installation.fails(line, 2, f"SLICEWAY_{name} is wrong")
    assert "fake-secret-1" not in installation.out + installation.err


def test_keys_are_created_listed_and_revoked(installation: Any, database_url: str) -> None:
    assert installation("keys create --tenant acme --scope submit --scope read --name 'web backend'") == 0
    text = installation.out.strip()
    with closing(Database(database_url)) as database, database.connection() as connection:
        found = find_key(connection, text)
    assert found is not None
    assert (found.tenant, found.name, sorted(found.scopes)) == ("acme", "web backend", ["read", "submit"])
    assert installation("keys list --json") == 0
    [listed] = json.loads(installation.out)
    assert (listed["id"], listed["revoked_at"]) == (str(found.id), None)
    assert installation(f"keys revoke {found.id}") == 0
    assert installation("keys list") == 0
    head, row = installation.out.splitlines()
    assert head.split() == ["ID", "TENANT", "SCOPES", "NAME", "CREATED", "REVOKED", "USED"]
    assert row.startswith(str(found.id))
    assert text not in installation.out
    installation.fails("keys revoke 01890000-0000-7000-8000-000000000000", 1, "there is no key")
    installation.fails("keys create --tenant 'a b'", 1, "tenant")


def test_a_database_that_is_away_or_empty_is_reported(
    installation: Any, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", empty_database_url)
    installation.fails("keys list", 3, "sliceway migrate")
    assert installation("migrate") == 0
    assert installation.out.startswith("Migrated: 0001")
    assert installation("migrate") == 0
    assert installation.out == "The database is up to date.\n"
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", "postgresql+psycopg://sliceway:fake-secret-1@127.0.0.1:1/sliceway")
    installation.fails("keys list", 3, "cannot be reached", "SLICEWAY_DATABASE_URL")
    assert "fake-secret-1" not in installation.err


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_keep_every_text_is_not_migrated(
    installation: Any, monkeypatch: pytest.MonkeyPatch, postgres: EmbeddedPostgres, encoding: str
) -> None:
    url = postgres.url_of("other_encoding")
    sql(postgres.url, f"CREATE DATABASE other_encoding TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    try:
        monkeypatch.setenv("SLICEWAY_DATABASE_URL", url)
        installation.fails("migrate", 2, f"SLICEWAY_DATABASE_URL is wrong: its database keeps text as {encoding}")
        assert sql(url, "SELECT relname FROM pg_class WHERE relname = 'job'") == []
    finally:
        sql(postgres.url, "DROP DATABASE other_encoding WITH (FORCE)")


def test_an_api_that_is_away_is_reported(installation: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLICEWAY_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SLICEWAY_API_KEY", "slw_fake-secret")
    installation.fails("jobs list", 3, "http://127.0.0.1:1 cannot be reached", "sliceway up")
    monkeypatch.setattr(progress, "ENQUEUE_FOR_S", 0)
    installation.fails(f"put {tmp_path}/media/a.bin main:a", 3, "cannot be reached")


def test_jobs_are_put_listed_shown_cancelled_and_retried(serving: Any, tmp_path: Path) -> None:
    assert serving(f"put {tmp_path}/media/a.bin main:videos/ --no-wait --label order=17 --retry-for 2h") == 0
    job = serving.out.strip()
    assert serving("jobs list --label order:17 --state queued") == 0
    found, state, _age, *rest = serving.out.splitlines()[1].split()
    assert (found, state, rest) == (job, "queued", ["acme", "main:videos/a.bin"])
    assert serving("jobs list --state failed --json") == 0
    assert json.loads(serving.out) == []
    assert serving(f"jobs show {job} --json") == 0
    view = json.loads(serving.out)
    assert (view["source"]["root"], view["source"]["path"], view["retry_for_s"]) == ("media", "a.bin", 7200)
    assert serving(f"jobs show {job} --wait 1") == 0
    assert "order=17" in serving.out
    serving.fails(f"put {tmp_path}/media/a.bin main:videos/", 1, "a live job already writes", "Wait until it has ended")
    assert serving(f"jobs cancel {job}") == 0
    assert serving.out == f"{job} cancelled\n"
    assert serving(f"jobs retry {job} --json") == 0
    assert json.loads(serving.out) == {"id": job, "state": "queued"}
    serving.fails("jobs show 01890000-0000-7000-8000-000000000000", 1, "there is no job")
    serving.fails(f"put {tmp_path}/media/a.bin nowhere:a", 1, "there is no store 'nowhere'")
    serving.fails(f"put {tmp_path}/stores.toml main:a", 1, "below no root", "media = ")


def test_a_job_behind_a_breaker_that_it_has_not_met_is_printed_with_the_reason(
    serving: Any, tmp_path: Path, database_url: str
) -> None:
    assert serving(f"put {tmp_path}/media/a.bin main:a --no-wait") == 0
    job = serving.out.strip()
    sql(
        database_url,
        "INSERT INTO breaker (store, error, opened_at, probe_at) VALUES ('main',"
        """ '{"code": "store_unusable", "message": "the secret id is wrong", "advice": "Correct it."}',"""
        " '2026-01-02T03:04:05Z', now())",
    )
    assert serving("jobs list") == 0
    assert serving.out.splitlines()[1].split()[3:] == ["acme", "main:a", "store_unusable"]
    assert serving(f"jobs show {job}") == 0
    lines = [line.split(maxsplit=1) for line in serving.out.splitlines()]
    assert ["error", "store_unusable: the secret id is wrong"] in lines
    assert ["advice", "Correct it."] in lines
    assert ["failing_since", "2026-01-02T03:04:05Z"] in lines


def test_a_list_continues_over_pages(serving: Any, database_url: str) -> None:
    sql(
        database_url,
        "INSERT INTO job"
        " (id, tenant, state, step, priority, finished_at, source, store, key, target, overwrite, verify, retry_for_s)"
        " SELECT gen_random_uuid(), 'acme', 'failed', 'idle', 5, now(),"
        """ '{"kind": "file", "root": "media", "path": "a"}', 'main', n::text, n::text, false, 'auto', 60"""
        " FROM generate_series(1, 1203) n",
    )
    assert serving("jobs list --limit 1201 --json") == 0
    assert len({job["id"] for job in json.loads(serving.out)}) == 1201
    [cursor] = re.findall(r"There are more: `--cursor (\S+)`", serving.err)
    assert serving(f"jobs list --cursor {cursor}") == 0
    assert len(serving.out.splitlines()) == 1 + 2
    assert serving.err == ""
    assert serving("jobs list --limit 5000") == 0
    assert len(serving.out.splitlines()) == 1 + 1203


def test_a_list_is_filtered_by_time_and_label(serving: Any, tmp_path: Path) -> None:
    assert serving(f"put {tmp_path}/media/a.bin main:a --no-wait --label of:1=2 --label a=b:c") == 0
    job = serving.out.strip()

    def listed(options: str) -> bool:
        assert serving(f"jobs list --json {options}") == 0
        return [view["id"] for view in json.loads(serving.out)] == [job]

    now = datetime.now(UTC)
    before, after = now - timedelta(days=2), now + timedelta(days=2)
    assert listed(f"--created-from {before:%Y-%m-%d} --created-before {after:%Y-%m-%dT%H:%M:%SZ}")
    assert not listed(f"--created-before {before.astimezone().isoformat()}")
    assert not listed(f"--created-from {after:%Y-%m-%dT%H:%M}")
    assert listed("--label of=1=2 --label a:b:c")
    serving.fails("jobs list --created-from yesterday", 2, "2026-01-31T12:00:00Z")
    serving.fails("jobs list --label =x", 2, "NAME=VALUE")
    serving.fails(f"put {tmp_path}/media main:a", 1, "is a folder")


GONE = '{"code": "source_gone", "message": "it is gone", "advice": "Put it back."}'


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ("state = 'succeeded', step = 'idle', size_bytes = 1234", (0, "has all 1,234 bytes")),
        (f"state = 'failed', step = 'idle', error = '{GONE}'", (1, "it is gone. Put it back.")),
        ("state = 'cancelled', step = 'idle'", (1, "it was cancelled")),
    ],
)
def test_put_follows_a_job_to_its_end(
    serving: Any, database_url: str, tmp_path: Path, change: str, ends: tuple[int, str]
) -> None:
    def end() -> None:
        pause = threading.Event()
        while not sql(database_url, f"UPDATE job SET finished_at = now(), {change} RETURNING id"):  # noqa: S608 - from above
            pause.wait(0.05)

    ending = threading.Thread(target=end)
    ending.start()
    code = serving(f"put {tmp_path}/media/a.bin main:a")
    ending.join(120)
    assert code == ends[0]
    assert ends[1] in serving.out + serving.err


def test_ctrl_c_leaves_the_upload_running_and_prints_how_to_cancel_it(
    serving: Any, database_url: str, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "worker.cli", "put", f"{tmp_path}/media/a.bin", "main:a"]
    put = subprocess.Popen(argv, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    pause = threading.Event()
    while not sql(database_url, "SELECT id FROM job"):
        assert put.poll() is None
        pause.wait(0.05)
    while put.poll() is None and not reads_jobs(database_url):
        pause.wait(0.05)
    put.send_signal(signal.SIGINT)
    _, error = put.communicate(timeout=240)
    [job] = sql(database_url, "SELECT id, state FROM job")
    assert (put.returncode, job["state"]) == (130, "queued")
    assert f"sliceway jobs cancel {job['id']}" in error
    assert error.count("\n") == 1
    assert serving(f"jobs cancel {job['id']}") == 0


def test_flower_does_not_start_without_a_password(installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (None, "", "operator", "operator:", ":fake-secret"):
        if wrong is not None:
            monkeypatch.setenv("SLICEWAY_FLOWER_BASIC_AUTH", wrong)
        installation.fails("flower", 2, "SLICEWAY_FLOWER_BASIC_AUTH", "user:password")


def test_the_emulator_has_its_own_options(sliceway: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "emulator", "--help"], capture_output=True, text=True, check=True
    )
    assert "--data-dir" in done.stdout
    assert sliceway("version") == 0
    assert sliceway.out.startswith("sliceway")
