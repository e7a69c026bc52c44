"""Two releases on one database: an update in turn, with a kill in the middle.

Release 0.1.0 runs from its own sources, taken out of this repository's history, in the same environment of packages.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.deadline import DEADLINE_S
from tests.support.environ import QUICK
from tests.support.installation import MIB
from tests.support.job import Job
from tests.support.store import SLICE_BYTES
from worker.local.ports import free_port
from worker.local.process import Child, wait_until
from worker.runtime.supervisor import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.installation import Installation
    from tests.support.processes import Worker

HOME = Path(__file__).parents[2]
RELEASE = "1fb817799c5a339265a7cee92bbd4c533b58bed6"
"""The commit of 0.1.0."""
OLD, NEW = "0.1", "new"
#: Runs a command in a folder, under the process id that the test knows.
IN_FOLDER = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of 0.1.0 in a folder of their own."""
    git = shutil.which("git")
    missing = (
        f"the history of this repository down to {RELEASE[:7]} (release 0.1.0) is not here; run this in a clone, and"
        " `git fetch --unshallow` where that is a shallow one"
    )
    if git is None or not (HOME / ".git").exists():
        pytest.fail(missing)
    archive = [git, "-C", str(HOME), "archive", "--format=tar", RELEASE, "api", "worker", "migrations"]
    taken = subprocess.run(archive, capture_output=True, check=False)
    if taken.returncode != 0:
        pytest.fail(f"{missing}: {taken.stderr.decode(errors='replace').strip()}")
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(fileobj=io.BytesIO(taken.stdout)) as sources:
        sources.extractall(folder, filter="data")
    return folder


def start(site: Installation, release: Path, which: str) -> Worker:
    """Start a worker process of a release, and wait until it is at work."""
    environ = site.environ | QUICK | {"SLICEWAY_WORKER_THREADS": "2", "SLICEWAY_LEAD_S": "3"}
    worker = site.start_worker(environ, of_release(release, command(0)) if which == OLD else None)
    assert site.known(worker), worker.text()
    if which == OLD:
        assert Path(f"/proc/{worker.pid}/cwd").readlink() == release
    return worker


def of_release(release: Path, argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one with the code of 0.1.0, by the folder that it runs in."""
    return [sys.executable, "-c", IN_FOLDER, str(release), *argv]


def leads(site: Installation, worker: Worker) -> bool:
    """Whether a worker process leads the dispatch."""
    rows = site.sql("SELECT w.name FROM leadership l JOIN worker w ON w.id = l.holder WHERE l.until > now()")
    return any(row["name"].endswith(f":{worker.pid}") for row in rows)


def senders(site: Installation, job: Job) -> set[str]:
    """The names of the workers that have or had slices of a job."""
    query = "SELECT DISTINCT w.name FROM slice s JOIN worker w ON w.id = s.worker WHERE s.job_id = %(job)s"
    return {row["name"] for row in site.sql(query, job=job.id)}


def sends(site: Installation, job: Job, worker: Worker) -> bool:
    """Whether a worker process has or had a slice of a job."""
    return any(name.endswith(f":{worker.pid}") for name in senders(site, job))


@pytest.mark.parametrize("victim", ["the leader", "the other"])
@pytest.mark.parametrize("first", [NEW, OLD])
def test_either_release_goes_on_where_the_other_was_killed(
    site: Installation, release: Path, first: str, victim: str
) -> None:
    site.workers(0)
    leader = start(site, release, first)
    site.until(lambda: leads(site, leader), "the first to lead")
    other = start(site, release, NEW if first == OLD else OLD)
    site.store.control.change(rate_bytes_per_s=2 * MIB)
    # whose messages have a header that 0.1 does not know
    job = site.enqueue(24 * MIB, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    site.until(lambda: all(sends(site, job, each) for each in (leader, other)), "slices claimed by both")
    site.until(lambda: job.done() >= 4, "checkpoints")
    killed, kept = (leader, other) if victim == "the leader" else (other, leader)
    killed.kill()
    assert job.state == "uploading", "too late: all was sent"
    before = job.done()
    site.store.control.change(rate_bytes_per_s=None)
    result = job.succeeds()
    assert site.store.object_at(job.key) == job.content
    site.until(lambda: leads(site, kept), "the other to lead")
    assert before < 48
    assert job.sent_twice_bytes() <= 2 * 2 * SLICE_BYTES  # two under way, and two that waited for their checkpoint
    assert result["slices"]["deaths"] <= 4
    assert job.row["epoch"] == 1


@contextmanager
def old_api(site: Installation, release: Path) -> Iterator[httpx.Client]:
    """The API of 0.1.0, on the database of the site, for the key that the site has."""
    port = free_port()
    environ = site.environ | {"SLICEWAY_API_PORT": str(port)}
    log = site.folder / "old-api.log"
    served = Child([sys.executable, "-m", "api"], log=log, env=environ, cwd=release)
    headers = {"Authorization": site.api.headers["Authorization"]}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30) as client:
        try:
            assert wait_until(lambda: answers(client), timeout_s=DEADLINE_S, alive=lambda: served.poll() is None), (
                log.read_text()
            )
            yield client
        finally:
            served.stop()


def answers(client: httpx.Client) -> bool:
    """Whether an API is there."""
    try:
        return client.get("/v1/jobs", params={"limit": 1}).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("which", [NEW, OLD])
def test_the_api_of_either_release_enqueues_cancels_and_retries_for_workers_of_the_other(
    site: Installation, release: Path, which: str
) -> None:
    site.workers(0)
    start(site, release, OLD if which == NEW else NEW)
    with old_api(site, release) as old:
        api = site.api if which == NEW else old
        content = site.file(f"{which}/plain", 3 * MIB)
        plain = posted(site, api, f"{which}/plain", content)
        plain.succeeds()
        assert site.store.object_at(plain.key) == content

        content = site.file(f"{which}/ended", 3 * MIB)
        let_go = site.store.hold("data", f"{which}/ended")
        ended = posted(site, api, f"{which}/ended", content)
        site.store.held("data", ended.key)
        assert api.post(f"/v1/jobs/{ended.id}/cancel").json()["state"] == "cancelling"
        let_go()
        ended.reaches("cancelled")
        assert api.post(f"/v1/jobs/{ended.id}/retry").json()["state"] == "queued"
        ended.succeeds()
        assert site.store.object_at(ended.key) == content

        content = site.file(f"{which}/failed", 3 * MIB)
        rule = site.store.control.add_rule("error", op="data", path=f"{which}/failed", offset=0, status=400, code=-5999)
        failed = posted(site, api, f"{which}/failed", content)
        failed.fails()
        site.until(lambda: all(row["state"] != "sending" for row in failed.slices), "what was on its way recorded")
        done = failed.done()
        site.store.control.remove_rule(rule)
        assert api.post(f"/v1/jobs/{failed.id}/retry").json()["state"] == "queued"
        failed.succeeds()
        assert (failed.row["epoch"], failed.sent_twice_bytes()) == (1, SLICE_BYTES)
        assert done <= 5

        for each in (plain, ended, failed):  # and each shows what the other has done
            views = [client.get(f"/v1/jobs/{each.id}").raise_for_status().json() for client in (site.api, old)]
            assert [view["state"] for view in views] == ["succeeded", "succeeded"]


def posted(site: Installation, api: httpx.Client, key: str, content: bytes) -> Job:
    """A job that one of the APIs was asked for; its file is there."""
    body = {"source": {"kind": "file", "root": "media", "path": key}, "store": "main", "key": key}
    answer = api.post("/v1/jobs", json=body)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return site.note(Job(site, answer.json()["id"], key, content, site.media / key))


def test_a_cancel_by_the_old_api_that_began_nothing_ends_under_new_workers(site: Installation, release: Path) -> None:
    """The old API lets it be looked after; the new workers find that there is nothing."""
    site.workers(0)
    start(site, release, NEW)
    site.unmount()
    with old_api(site, release) as old:
        body = {"source": {"kind": "file", "root": "volume", "path": "a"}, "store": "main", "key": "mixed/unread"}
        job = site.note(Job(site, old.post("/v1/jobs", json=body).json()["id"], "mixed/unread", b"", site.volume / "a"))
        site.until(lambda: job.row["error"], "the root missed")
        assert old.post(f"/v1/jobs/{job.id}/cancel").is_success
        job.reaches("cancelled")


def test_to_workers_of_the_old_release_an_abandoned_job_is_a_cancelled_one(site: Installation, release: Path) -> None:
    """Its retry, too: the new workers that come later abort what was cancelled then."""
    site.workers(0)
    start(site, release, OLD)
    content = site.file("mixed/abandoned", 3 * MIB)
    let_go = site.store.hold("data", "mixed/abandoned")
    job = posted(site, site.api, "mixed/abandoned", content)
    site.store.held("data", job.key)
    assert job.act("abandon")["state"] == "cancelling"
    let_go()
    job.reaches("cancelled")
    assert job.key not in site.store.unfinished()
    with old_api(site, release) as old:
        assert old.post(f"/v1/jobs/{job.id}/retry").json()["state"] == "queued"
        job.succeeds()
    assert site.store.object_at(job.key) == content
