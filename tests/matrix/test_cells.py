"""Each cell of the matrix: an upload through the death of a worker, Flower and doctor, or a refusal in one line."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.matrix.cells import CELLS, Cell
from tests.support.command import findings, sliceway
from tests.support.system import FINAL, MIB, environment, system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.matrix.variants import Database

SLICES = 12


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of a database server may pass through."""
    made = Path(tempfile.mkdtemp(prefix="sliceway-matrix-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in CELLS if not cell.refused])
def test_an_upload_survives_a_worker(cell: Cell, folder: Path) -> None:
    with cell.broker(folder) as broker, cell.database(folder) as database:
        with system(folder / "state", broker | database.settings, database.url) as running:
            running.until(lambda: len(running.flower_workers()) == 2, "both workers in Flower")
            running.hold_slice(SLICES // 2)
            job = running.upload(SLICES)
            running.until(lambda: running.job(job)["progress"]["bytes_done"] > 2 * MIB, "some slices done")
            running.kill_holder()
            running.until(lambda: running.job(job)["state"] in FINAL, "the end of the job")
            view = running.job(job)
            assert (view["state"], view["error"], running.object_is_whole()) == ("succeeded", None, True)
            kinds = {each["kind"] for each in running.api.get(f"/v1/jobs/{job}/events?limit=200").json()["items"]}
            assert "worker_lost" in kinds
            running.until(lambda: "SUCCESS" in running.flower_tasks(job).values(), "tasks of the job in Flower")
            found = findings(running.environ)
            assert [each for each in found.values() if each["level"] == "failed"] == []
            assert {"database", "database session", "migrations", "broker", "workers", "dispatcher"} <= found.keys()
            assert f"PostgreSQL {database.version} " in found["database"]["text"]
        assert tables(database) == database.schema


def tables(database: Database) -> str:
    """The schema of the tables."""
    with psycopg.connect(database.url) as connection:
        found = connection.execute(b"SELECT schemaname FROM pg_tables WHERE tablename = 'job'").fetchall()
    [(name,)] = found
    return str(name)


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in CELLS if cell.refused])
def test_a_pooler_without_a_way_past_it_is_refused(cell: Cell, folder: Path) -> None:
    with cell.broker(folder) as broker, cell.database(folder) as database:
        assert database.ignored is not None
        drops = [("migrate", 3), ("migrate", 3), ("migrate", 3), ("worker", 2), ("api", 2)]
        for url, commands in ((database.settings["SLICEWAY_DATABASE_URL"], drops[:1]), (database.ignored.url, drops)):
            environ = environment(broker | {"SLICEWAY_DATABASE_URL": url, "SLICEWAY_API_PORT": "0"})
            for command, code in commands:
                done = sliceway(environ, command)
                said = [line for line in done.stderr.splitlines() if line.startswith("sliceway: ")]
                assert (done.returncode, len(said)) == (code, 1), done.stderr
                assert "a pooler at 127.0.0.1:" in said[0]
                assert "SLICEWAY_DATABASE_DIRECT_URL" in said[0]
            assert findings(environ)["database"]["text"].startswith("a pooler at 127.0.0.1:")
        with psycopg.connect(database.url) as connection:
            locks = connection.execute(b"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert locks == (0,)
