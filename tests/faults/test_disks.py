"""Servers with a full disk: Postgres, up to its crash, and the store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from tests.faults.disks import Disk
from tests.faults.network import SCALED
from tests.support.fixtures import Ground
from tests.support.installation import MIB, Installation
from tests.support.job import Job, JobSpec
from worker.db.migrate import migrate
from worker.db.pool import conninfo
from worker.local.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.local.valkey import EmbeddedValkey

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: full disks; only root can mount small ones")

TEMPLATE = "sliceway_template"


class Cramped(Installation):
    """An installation whose store and database have small disks of their own."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, disk: Disk) -> None:
        """Start everything."""
        self.disk, self.store_disk = disk, Disk(folder / "data", 64)
        super().__init__(folder, postgres, valkey, TEMPLATE)

    def calm(self) -> None:
        """Free both disks."""
        self.store_disk.clear()
        self.disk.clear()
        if self.postgres.poll() is not None:
            self.postgres.start()
        super().calm()

    def close(self) -> None:
        """Stop everything."""
        super().close()
        self.store_disk.close()


@pytest.fixture(scope="module")
def grounds(
    server_folder: Path, tmp_path_factory: pytest.TempPathFactory, valkey: EmbeddedValkey
) -> Iterator[Ground[Cramped]]:
    disk = Disk(server_folder / "disk", 192)
    server = EmbeddedPostgres(disk.folder / "postgres", durable=False)
    server.start()
    with psycopg.connect(conninfo(server.url_of("postgres")), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(server.url_of(TEMPLATE))
    ground = Ground(lambda: Cramped(tmp_path_factory.mktemp("full"), server, valkey, disk))
    yield ground
    ground.clear()
    server.stop("immediate")
    disk.close()


@pytest.fixture
def site(grounds: Ground[Cramped]) -> Iterator[Cramped]:
    yield from grounds.lend()


def enqueue_until_refused(site: Cramped) -> tuple[list[Job], httpx.Response]:
    """Enqueue small files until the API refuses one; returns the jobs, and the refusal."""
    jobs: list[Job] = []
    for number in range(2000):
        key = f"on-a-full-disk-{number}"
        (site.media / key).write_bytes(key.encode())
        answer = site.api.post("/v1/jobs", json=JobSpec(key, key).document)
        if answer.status_code != httpx.codes.ACCEPTED:
            return jobs, answer
        jobs.append(site.note(Job(site, answer.json()["id"], key, key.encode(), site.media / key)))
    raise AssertionError("a full disk refused none")


def crashed(site: Cramped) -> bool:
    """Make Postgres start another WAL file; true if it crashes."""
    try:
        site.sql("SELECT pg_switch_wal()")
    except psycopg.OperationalError:
        return True
    return False


def test_postgres_on_a_full_disk_loses_no_accepted_job_even_if_it_crashes(site: Cramped) -> None:
    site.workers(1, **SCALED)
    key = site.fresh_key()
    release = site.store.hold("data", key)
    half = site.enqueue(2 * MIB, key)
    site.store.held("data", key, 4)
    site.disk.fill()
    jobs, refusal = enqueue_until_refused(site)
    assert (refusal.status_code, refusal.json()["code"]) == (503, "database_unavailable")
    assert refusal.json()["detail"] == "the database has no room left"
    site.until(lambda: crashed(site), "no room for its WAL")
    release()
    site.postgres.stop("immediate")
    site.disk.clear()
    site.postgres.start()
    for job in (half, *jobs):
        job.succeeds()
        assert (job.row["attempts"], job.row["deaths"]) == (0, 0)
    assert half.sent_twice_bytes() <= len(half.content)


def test_a_store_on_a_full_disk_only_costs_time(site: Cramped) -> None:
    site.workers(1, **SCALED)
    key = site.fresh_key()
    release = site.store.hold("data", key)
    half = site.enqueue(2 * MIB, key)
    site.store.held("data", key, 4)
    site.store_disk.fill()
    release()
    more = [site.enqueue(2 * MIB), site.enqueue(1000)]
    site.until(lambda: all(job.row["error"] for job in (half, *more)), "an error at every job")
    site.store_disk.clear()
    for job in (half, *more):
        result = job.succeeds()
        assert job.row["attempts"] == 0
        assert result.get("slices", {}).get("failed_attempts", 0) == 0
