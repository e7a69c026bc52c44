"""The stores file is read again by running processes: a rotated secret, a new store, a wrong file, a frozen process."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.command import findings, sliceway
from tests.support.deadline import DEADLINE_S
from tests.support.fixtures import Ground, Servers
from tests.support.installation import MIB, Installation
from tests.support.processes import PARENT
from tests.support.stores_file import write_stores
from worker.local.ports import free_port
from worker.local.process import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.job import Job
    from tests.support.stores_file import Table

OLD_SECRET, NEW_SECRET = "fake-old-secret-of-the-store", "fake-secret-key-of-the-store"


class Reloadable(Installation):
    """An installation whose API is a process, too, and whose stores file names the secret of `main` by a file."""

    def _serve_api(self) -> int:
        port = free_port()
        self.environ["SLICEWAY_API_PORT"] = str(port)
        self.environ |= {"SLICEWAY_HEARTBEAT_S": "0.2"}
        self.api_log = self.folder / "api.log"
        self._child = Child([sys.executable, "-m", "api"], log=self.api_log, env=self.environ)
        url = f"http://127.0.0.1:{port}/readyz"
        self.until(lambda: _is_ready(url), "the API")
        return port

    def _stop_api(self) -> None:
        self._child.stop(grace_s=DEADLINE_S)

    @property
    def api_pid(self) -> int:
        """The process of the API."""
        return self._child.pid

    @property
    def secret(self) -> Path:
        """The file with the secret of `main`."""
        return self.folder / "main.secret"

    def stores(self) -> dict[str, Table]:
        """The profiles at the start."""
        if not self.secret.exists():
            self.secret.write_text(NEW_SECRET)
        main = {**super().stores()["main"], "secret_key_file": self.secret}
        del main["secret_key"]
        return {"main": main}

    def write(self, text: str | None = None, **stores: Table) -> None:
        """Write the stores file anew: with other stores, or this text."""
        file = self.folder / "stores.toml"
        if text is None:
            write_stores(file, stores or self.stores(), self.roots())
        else:
            file.write_text(text)

    def reload(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run `sliceway stores reload`; returns what it prints."""
        done = sliceway(self.environ, "stores", "reload", "--json", *options)
        assert done.returncode == code, done.stdout + done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else dict(json.loads(done.stderr))

    def generation(self) -> int:
        """How many reloads were asked for."""
        return int(self.sql("SELECT generation FROM stores_reload")[0]["generation"])

    def versions(self) -> dict[str, str]:
        """The version of each process, by the end of its name."""
        rows = self.sql(
            "SELECT name, stores->>'version' AS version FROM worker WHERE ended_at IS NULL"
            " UNION ALL SELECT name, stores->>'version' FROM api_process"
        )
        return {row["name"].rpartition(":")[2]: row["version"] for row in rows}


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=DEADLINE_S).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
def site(servers: Servers) -> Iterator[Reloadable]:
    ground: Ground[Reloadable] = Ground(lambda: servers.install(Reloadable))
    yield from ground.lend()
    ground.clear()


def test_jobs_that_wait_for_a_rotated_secret_go_on_at_once_without_a_restart(site: Reloadable) -> None:
    site.secret.write_text(OLD_SECRET)
    workers = site.workers(2)
    jobs = [site.enqueue(2 * MIB) for _ in range(3)]
    site.until(lambda: site.sql("SELECT 1 FROM breaker"), "the breaker open")
    # the next probe by itself would come after the end of this test
    later = "UPDATE breaker SET probe_at = now() + interval '1 day' RETURNING error->>'code' AS code"
    assert site.sql(later)[0]["code"] == "store_unusable"
    before = site.generation()
    site.secret.write_text(NEW_SECRET)
    said = site.reload()
    assert {each["current"] for each in said["processes"]} == {True}
    assert {each["role"] for each in said["processes"]} == {"api", "worker"}
    assert len(said["processes"]) == 3
    assert site.generation() == before + 1
    for job in jobs:
        job.succeeds()
        assert job.row["attempts"] == 0
    assert all(worker.alive for worker in workers)
    assert not site.sql("SELECT 1 FROM breaker")
    texts = [*(log.read_text() for log in site.logs()), site.api_log.read_text(), json.dumps(said)]
    assert not [text for text in texts if OLD_SECRET in text or NEW_SECRET in text]


def test_a_request_that_began_with_the_old_secret_does_not_open_the_breaker_of_the_new_one(site: Reloadable) -> None:
    site.secret.write_text(OLD_SECRET)
    site.workers(1)
    job, release = site.enqueue_held(2 * MIB, "init", count=1)
    site.secret.write_text(NEW_SECRET)
    site.reload()
    release()
    job.succeeds()
    assert len(job.asked("init", status=403)) == 1
    assert not any("store.unusable" in log.read_text() for log in site.logs())


def test_a_wrong_file_is_refused_and_the_profiles_from_before_stay_in_use(site: Reloadable) -> None:
    [worker] = site.workers(1)
    site.enqueue(MIB).succeeds()
    before = site.generation()
    good = (site.folder / "stores.toml").read_text()
    site.write(good.replace("bucket", "buckt"))
    refused = site.reload(code=2)
    assert "[stores.main] buckt" in refused["detail"]
    assert site.generation() == before
    for pid, log in ((worker.pid, worker.log), (site.api_pid, site.api_log)):
        os.kill(pid, signal.SIGHUP)
        site.until(lambda log=log: "stores.refused" in log.read_text(), "the refusal")  # type: ignore[misc]
        [line] = [line for line in log.read_text().splitlines() if "stores.refused" in line]
        assert "[stores.main] buckt: is not known" in line
        assert "sliceway stores reload" in line
    site.enqueue(MIB).succeeds()
    site.until(lambda: "refused" in findings(site.environ)["stores file at the processes"]["text"], "the doctor")
    site.write(good)
    assert {each["current"] for each in site.reload()["processes"]} == {True}
    assert worker.alive
    assert findings(site.environ)["stores file at the processes"]["level"] == "ok"


def test_a_new_store_is_used_and_a_removed_one_waits_for_its_return(site: Reloadable) -> None:
    [worker] = site.workers(1)
    site.enqueue(MIB).succeeds()
    both = {**site.stores(), "new": {**site.stores()["main"], "max_in_flight": 1}}
    site.write(**both)
    site.reload()
    job, release = _enqueue_held(site, "data")
    assert sum(row["state"] in {"dispatched", "sending"} for row in job.slices) == 1  # the new store's cap
    release()
    job.succeeds()
    kept, release = _enqueue_held(site, "init")
    site.write()
    site.reload()
    release()
    site.until(lambda: (kept.row["error"] or {}).get("code") == "store_changed", "the job to wait")
    refused = site.api.post("/v1/jobs", json={**_document(site), "store": "new"})
    assert refused.json()["code"] == "unknown_store"
    # by itself it would look again after the end of this test
    site.until(lambda: all(row["not_before"] for row in kept.slices), "all slices to wait")
    later = "UPDATE slice SET not_before = now() + interval '1 day' WHERE job_id = %(id)s AND not_before IS NOT NULL"
    site.sql(later, id=kept.id)
    site.write(**both)
    site.reload()
    kept.succeeds()
    assert worker.alive


def _enqueue_held(site: Reloadable, op: str) -> tuple[Job, Callable[[], None]]:
    """Enqueue a file for the store `new`, and wait until the store holds the first request of this kind."""
    key = site.fresh_key()
    release = site.store.hold(op, key, count=1)
    job = site.enqueue(2 * MIB, key, store="new")
    site.store.held(op, key)
    return job, release


def _document(site: Reloadable) -> dict[str, Any]:
    site.file("any", 100)
    return {"source": {"kind": "file", "root": "media", "path": "any"}, "key": "any"}


def test_sighup_has_a_worker_and_its_parents_children_and_the_api_read_the_file(site: Reloadable) -> None:
    [alone] = site.workers(1)
    parent = site.start_worker(alone.environ | {"SLICEWAY_WORKER_PROCESSES": "2"}, PARENT)
    site.until(lambda: len(site.versions()) == 4 and all(site.versions().values()), "all processes")
    [before] = set(site.versions().values())
    children = parent.children()
    site.write(**site.stores(), new=site.stores()["main"])
    for pid in (alone.pid, parent.pid, site.api_pid):
        os.kill(pid, signal.SIGHUP)
    site.until(lambda: before not in site.versions().values(), "all to work with the new file")
    assert site.versions().keys() == {str(pid) for pid in (alone.pid, site.api_pid, *children)}
    assert len(set(site.versions().values())) == 1
    assert "signal.hangup" in alone.text()
    site.enqueue(MIB, store="new").succeeds()


def test_a_frozen_process_is_named_and_reads_the_file_when_it_goes_on(site: Reloadable) -> None:
    [worker] = site.workers(1)
    site.until(lambda: all(site.versions().values()), "the versions")
    worker.freeze()
    site.write(**site.stores(), new=site.stores()["main"])
    quiet = site.environ | {"SLICEWAY_LOG_LEVEL": "info"}  # at debug a failure is a traceback
    said = sliceway(quiet, "stores", "reload", "--json", "--timeout", "1")
    assert (said.returncode, json.loads(said.stderr)["code"]) == (1, "stores_behind")
    processes = {each["role"]: each for each in json.loads(said.stdout)["processes"]}
    assert processes["api"]["current"]
    assert not processes["worker"]["current"]
    assert processes["worker"]["name"].endswith(f":{worker.pid}")
    assert "has not read its file yet" in processes["worker"]["state"]
    found = findings(site.environ)["stores file at the processes"]
    assert found["level"] == "failed"
    assert f":{worker.pid} has not read its file yet" in found["text"]
    worker.thaw()
    site.until(lambda: len(set(site.versions().values())) == 1, "the worker to read its file")
    assert findings(site.environ)["stores file at the processes"]["level"] == "ok"
    assert worker.alive
