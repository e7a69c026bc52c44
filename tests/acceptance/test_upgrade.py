"""Workers of this release go on where those of 0.1 had adopted uploads of other content: no object is a mixture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.migration.old_database import ENDPOINT, FOREIGN_SLICES, REVISION, SIZE, build
from tests.support.installation import Installation
from tests.support.invariants import broken
from tests.support.job import Job
from tests.support.store import BUCKET, SLICE_BYTES
from tests.support.templates import create_database, drop_database
from worker.db.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey


@pytest.fixture
def installed(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> Iterator[Callable[[str], dict[str, Job]]]:
    """Puts up an installation on a database of 0.1, migrated before or after the rows came; returns its jobs by key."""
    sites: list[Installation] = []

    def install(revision: str) -> dict[str, Job]:
        template = create_database(postgres, "template0")
        build(postgres.url_of(template), leases_end_in_s=2, revision=revision)
        migrate(postgres.url_of(template))
        site = Installation(tmp_path_factory.mktemp("upgraded"), postgres, valkey, template)
        sites.append(site)
        drop_database(postgres, template)
        site.sql("UPDATE job SET target = replace(target, %(old)s, %(new)s)", old=ENDPOINT, new=site.store.url[7:])
        return {row["key"]: _put_in_place(site, row["id"], row["key"]) for row in site.sql("SELECT id, key FROM job")}

    yield install
    for site in sites:
        site.calm()
        site.close()


def _put_in_place(site: Installation, job_id: object, key: str) -> Job:
    """Have the job's file and its session where its row says that they are."""
    job = site.note(Job(site, str(job_id), key, site.file(key, SIZE), site.media / key))
    found = job.path.stat()
    fingerprint = {"size": SIZE, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}
    if key in FOREIGN_SLICES:
        session = site.store.plant_upload(key, SIZE, *[b"o" * SLICE_BYTES] * FOREIGN_SLICES[key])
        held = site.store.control.uploads(BUCKET)
        assert session in {upload["session"] for upload in held}
    else:
        digests = job.row["digests"]
        session = site.store.control.plant_upload(
            BUCKET, key, filesize=SIZE, sha=digests["value"], uploadparts=json.dumps(digests["proof"])
        )
    site.sql(
        """UPDATE job SET fingerprint = %(fingerprint)s,
             session = CASE WHEN session IS NOT NULL
                            THEN session || jsonb_build_object('session', %(session)s::text) END
           WHERE id = %(id)s""",
        fingerprint=Jsonb(fingerprint),
        session=session,
        id=job.id,
    )
    return job


def _run(jobs: dict[str, Job]) -> dict[str, tuple[str, str | None]]:
    """Let new workers bring all jobs to an end, and have the failed one retried; return their ends."""
    site = jobs["own"].site
    site.workers(2)
    jobs["failed"].act("retry")
    for job in jobs.values():
        job.reaches("succeeded", "failed", "cancelled")
    assert broken(site) == []
    rows = {key: job.row for key, job in jobs.items()}
    for key, row in rows.items():
        there = site.store.object_at(key)
        assert there == (jobs[key].content if row["state"] == "succeeded" else None)
    return {key: (row["state"], (row["error"] or {}).get("code")) for key, row in rows.items()}


SUCCEEDED, CANCELLED = ("succeeded", None), ("cancelled", None)
#: What has all its bytes looks like an object, which is not ours to delete.
IN_PROGRESS = ("failed", "upload_in_progress")


def test_jobs_of_0_1_begin_afresh_and_upload_their_files(installed: Callable[[str], dict[str, Job]]) -> None:
    jobs = installed(REVISION)
    assert _run(jobs) == {
        "queued": SUCCEEDED,
        "initializing": SUCCEEDED,
        "uploading": SUCCEEDED,
        "finishing": IN_PROGRESS,
        "cancelling": CANCELLED,
        "failed": SUCCEEDED,
        "own": SUCCEEDED,
    }
    assert "session_left_open" in jobs["cancelling"].row["result"]
    assert jobs["cancelling"].site.store.unfinished()["cancelling"], "another client's upload was deleted"
    assert jobs["own"].row["epoch"] == 1
    assert not jobs["finishing"].asked("finish")


def test_what_a_worker_of_0_1_adopts_beside_new_ones_is_not_finished(
    installed: Callable[[str], dict[str, Job]],
) -> None:
    """The tables were migrated before: only the history says how the session came to its slices."""
    jobs = installed("head")
    ends = _run(jobs)
    assert ends == {
        "queued": IN_PROGRESS,
        "initializing": IN_PROGRESS,
        "uploading": IN_PROGRESS,
        "finishing": IN_PROGRESS,
        "cancelling": CANCELLED,
        "failed": SUCCEEDED,
        "own": SUCCEEDED,
    }
    assert {key for key, job in jobs.items() if job.asked("finish")} == {"failed", "own"}
