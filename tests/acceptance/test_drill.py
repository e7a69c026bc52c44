"""`sliceway drill` against a real installation: what it proves, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api import create_api_key
from tests.support.environ import DEAD_AFTER_S, QUICK
from tests.support.installation import MIB
from tests.support.processes import running
from worker.drill.site import NOTICE_SLACK_S
from worker.jobs.api_keys import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

KEYS = "sliceway-drill/*"
PIECE_BYTES = 256 * 1024
#: What the store keeps looking through for the end of a part, and so has not counted when the connection is cut.
HELD_BACK_BYTES = 100


class Drilling:
    """A drill that runs."""

    def __init__(self, site: Installation, *options: str, key: str | None = None) -> None:
        place = {
            "SLICEWAY_API_URL": str(site.api.base_url),
            "SLICEWAY_API_KEY": key or site.api.headers["Authorization"].removeprefix("Bearer "),
            "SLICEWAY_LOG_LEVEL": "warning",
        }
        argv = [sys.executable, "-m", "worker.cli", "drill", "--store", "main", "--root", "media"]
        argv += ["--size", "8", *options]
        self._site = site
        self._child = subprocess.Popen(
            argv, env=site.environ | QUICK | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.out = self.err = ""

    def until(self, step: str) -> None:
        """Read what it says up to this step."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self.out += line
            if f" {step} " in line:
                return
        raise AssertionError(f"it never came to {step}: {self.out}")

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def ends(self, code: int) -> Drilling:
        """It ends with this code; on standard error stands one line if it is not 0."""
        out, err = self._child.communicate(timeout=240)
        self.out, self.err = self.out + out, err.strip()
        assert (self._child.returncode, len(self.err.splitlines())) == (code, int(code != 0)), self.out + self.err
        return self

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    @property
    def steps(self) -> dict[str, str]:
        """Step -> level."""
        return {step["check"]: step["level"] for step in self.document["steps"]}


@pytest.fixture
def clean(site: Installation) -> Iterator[Installation]:
    """An installation in which nothing of a drill must be left when the test is over."""
    yield site
    for worker in site._workers:
        worker.thaw()
    left = "SELECT id, state, step FROM job WHERE labels ? 'drill' AND (finished_at IS NULL OR step <> 'idle')"
    site.until(lambda: not site.sql(left), "the end of the drill's jobs")
    site.until(lambda: not site.sql("SELECT number FROM slice WHERE state = 'sending'"), "the end of all leases")
    assert list(site.media.glob(".sliceway-drill-*")) == []
    assert [key for key in site.store.unfinished() if key.startswith("sliceway-drill/")] == []
    keys = {entry["path"] for entry in site.store.requests() if entry["path"].startswith("sliceway-drill/")}
    assert dict.fromkeys(keys) == {key: site.store.object_at(key) for key in keys}
    site.store.forget()  # what the drill has finished and deleted was checked here

    def all_rows_live() -> bool:
        rows = site.sql("SELECT name FROM worker WHERE ended_at IS NULL")
        return all(running(int(row["name"].rpartition(":")[2])) for row in rows)

    site.until(all_rows_live, "the end of the canary's row")


def test_a_crash_is_proven_to_be_survived_and_no_other_job_is_hurt(clean: Installation) -> None:
    clean.workers(2)
    clean.store.control.change(rate_bytes_per_s=4 * MIB)
    other = clean.enqueue(6 * MIB)
    drill = Drilling(clean, "--json").ends(0)
    document = drill.document
    assert (document["outcome"], document["limit_s"]) == ("proven", DEAD_AFTER_S + NOTICE_SLACK_S)
    assert set(drill.steps) - {"reached"} == {
        *("ready", "canary", "killed", "noticed", "taken over", "succeeded", "verified", "cleaned up"),
    }
    assert 0 < document["noticed_s"] <= document["taken_over_s"] <= document["succeeded_s"]
    [job] = clean.sql("SELECT key FROM job WHERE id = %(id)s", id=document["job"])
    sent = sum(entry["size"] or 0 for entry in clean.store.requests(op="data", path=job["key"]))
    assert document["bytes_sent_twice"] == PIECE_BYTES
    assert PIECE_BYTES - HELD_BACK_BYTES < sent - 8 * MIB <= PIECE_BYTES
    assert other.succeeds()["slices"]["deaths"] == 0
    assert [worker.alive for worker in clean._workers] == [True, True]


def test_without_another_worker_nothing_is_begun(clean: Installation) -> None:
    clean.workers(0)
    alive = "SELECT 1 FROM worker WHERE ended_at IS NULL AND heartbeat_at > now() - make_interval(secs => %(s)s)"
    clean.until(lambda: not clean.sql(alive, s=DEAD_AFTER_S), "the last worker silent, had it no time to say goodbye")
    drill = Drilling(clean).ends(4)
    assert "none could take over. Start one: `sliceway worker`." in drill.err
    assert clean.store.requests(path=KEYS) == []


def test_when_no_worker_takes_over_it_fails_and_says_what_is_left(clean: Installation) -> None:
    workers = clean.workers(2)
    clean.store.control.change(rate_bytes_per_s=4 * MIB)
    drill = Drilling(clean, "--timeout", "40")
    drill.until("killed")
    for worker in workers:
        worker.freeze()
    drill.ends(1)
    assert "no dispatcher has noticed the canary's death in time" in drill.out
    assert "left behind" in drill.out
    assert "it is still cancelling: it waits for a worker; Start a worker if none runs" in drill.out
    assert "Proven" not in drill.out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_it_cleans_up_when_it_is_interrupted(clean: Installation, how: signal.Signals) -> None:
    clean.workers(2)
    drill = Drilling(clean)
    drill.until("killed")
    drill.send(how)
    drill.ends(130)
    assert "cleaned up" in drill.out


def test_a_job_that_does_not_come_to_the_canary_proves_nothing(clean: Installation) -> None:
    clean.workers(2)
    clean.store.control.add_rule("error", op="init", path=KEYS, status=503, code=-1)
    drill = Drilling(clean, "--json", "--timeout", "30").ends(4)
    assert drill.document["outcome"] == "not_proven"
    assert "no slice of it has reached the canary in 30 s" in drill.err
    assert drill.steps["cleaned up"] == "ok"


def test_a_canary_that_gets_no_slice_of_five_jobs_proves_nothing(clean: Installation) -> None:
    clean.workers(2)
    let_go = clean.store.hold("init", KEYS)
    drill = Drilling(clean)
    drill.until("canary")
    os.kill(int(drill.out.rpartition("(pid ")[2].partition(")")[0]), signal.SIGSTOP)
    let_go()
    drill.ends(4)
    assert "no slice of 5 jobs has reached the canary" in drill.err
    assert drill.out.count("other workers were faster") == 5
    assert "cleaned up" in drill.out


def test_an_object_that_is_not_the_file_is_no_success(clean: Installation) -> None:
    clean.workers(2)
    clean.store.control.add_rule("corrupt", op="data", path=KEYS, offset=0)
    drill = Drilling(clean, "--json").ends(1)
    assert drill.document["outcome"] == "drill_failed"
    assert (drill.steps["succeeded"], drill.steps["verified"], drill.steps["cleaned up"]) == ("ok", "failed", "ok")


def test_a_key_that_could_not_clean_up_is_refused(clean: Installation) -> None:
    clean.workers(2)
    key = create_api_key(clean.database.url, scopes=[Scope.SUBMIT, Scope.READ])
    assert "lacks the scope operate" in Drilling(clean, key=key).ends(4).err
