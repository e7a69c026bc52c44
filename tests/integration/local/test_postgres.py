from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker.local.account import run_as, server_account
from worker.local.errors import LocalError
from worker.local.postgres import EmbeddedPostgres
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def connect(server: EmbeddedPostgres, database: str = "sliceway") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.url_of(database).replace("+psycopg", ""), autocommit=True)


@pytest.fixture
def durable(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_folder / request.node.name)
    server.start()
    yield server
    server.kill()


def test_database_of_ours_is_there_at_once(postgres: EmbeddedPostgres) -> None:
    with connect(postgres) as connection:
        row = connection.execute("SELECT current_database(), current_user, current_setting('TimeZone')").fetchone()
    assert row == ("sliceway", "sliceway", "UTC")


def test_no_password_no_entry(postgres: EmbeddedPostgres) -> None:
    port = postgres.url.rsplit(":", 1)[1].split("/")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://sliceway@127.0.0.1:{port}/sliceway")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://sliceway:fake-secret-wrong@127.0.0.1:{port}/sliceway")


def test_password_and_log_are_ours_alone(postgres: EmbeddedPostgres) -> None:
    for file in (postgres.folder / "password", postgres.log):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.stat().st_uid == os.geteuid()
    assert sorted(path.name for path in postgres.folder.iterdir()) == ["data", "password", "postgres.log"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_it_keeps_its_data(durable: EmbeddedPostgres, end: str) -> None:
    url = durable.url
    with connect(durable) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    getattr(durable, end)()
    durable.start()
    with connect(durable) as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)
    assert durable.url == url


def test_throwaway_server_keeps_commits_when_killed(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "throwaway", durable=False)
    server.start()
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    server.kill()
    server.start()
    with connect(server) as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)
    server.stop("immediate")


def test_second_server_on_the_same_folder_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(LocalError, match=r"already runs on .*postgres \(process \d+\)"):
        EmbeddedPostgres(postgres.folder).start()


def test_lock_file_whose_process_id_belongs_to_another_by_now(durable: EmbeddedPostgres) -> None:
    lock = durable.folder / "data/postmaster.pid"
    left_behind = lock.read_text().splitlines()
    durable.kill()
    bystander = subprocess.Popen(["cat"], stdin=subprocess.PIPE, **run_as(server_account()))
    lock.write_text("\n".join([str(bystander.pid), *left_behind[1:]]) + "\n")
    durable.start()
    assert durable.poll() is None
    bystander.communicate()


def test_interrupted_first_start_is_made_again(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "interrupted", durable=False)
    (server.folder / "data.new/base").mkdir(parents=True)
    server.start()
    with connect(server) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.stop("immediate")


def test_port_in_use_is_reported_in_one_line(server_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedPostgres(server_folder / "taken", port=taken.getsockname()[1], durable=False)
        with pytest.raises(LocalError, match=r"postgres ended with code 1: .*log: ") as caught:
            server.start()
    assert "\n" not in caught.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_root_runs_it_as_nobody(postgres: EmbeddedPostgres) -> None:
    assert pwd.getpwuid((postgres.folder / "data").stat().st_uid).pw_name == "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_folder_that_nobody_may_not_enter_is_refused_and_left_alone(server_folder: Path) -> None:
    closed = server_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LocalError, match=f"who may not enter {closed}"):
        EmbeddedPostgres(closed / "postgres").start()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_it_ends_when_its_owner_is_killed(server_folder: Path) -> None:
    folder = server_folder / "orphan"
    program = (
        "import pathlib, sys; from worker.local.postgres import EmbeddedPostgres;"
        "server = EmbeddedPostgres(pathlib.Path(sys.argv[1]), durable=False); server.start();"
        "print('up', flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    owner.kill()
    owner.communicate()
    assert wait_until(lambda: not (folder / "data/postmaster.pid").exists(), timeout_s=120)
