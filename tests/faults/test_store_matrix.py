"""Every fault of the store at every request of the engine: each comes to the end that a table has for it.

And a store that is killed with everything in flight, is away for long, refuses for long, lies, or has another clock.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.history import lines
from tests.faults.matrix.cells import PLACES, SLICE_BYTES, Cell, Scene, cells
from tests.faults.matrix.expected import DENIED, FINISHED_AGAIN, USUAL, expected, rows
from tests.faults.matrix.ground import SCALED, UNUSABLE, StoreGround
from tests.faults.matrix.run import SIZE_BYTES, SLICE_WISH_BYTES, Run, content_of
from tests.faults.matrix.strikes import WAYS
from tests.support.fixtures import Ground
from tests.support.invariants import broken
from tests.support.store import BUCKET
from worker.emulator.control import ControlError
from worker.emulator.core.faults import Fault
from worker.jobs.retry import ATTEMPTS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.job import Job
    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey

#: Ten minutes are twelve seconds; what is no wait of the engine's but the machine's own is as in `SCALED`.
FAST = SCALED | {
    "SLICEWAY_TIME_SCALE": "0.02",
    "SLICEWAY_HEARTBEAT_S": "10",
    "SLICEWAY_DEAD_AFTER_S": "200",
    "SLICEWAY_LEAD_S": "50",
}
TEN_MINUTES_S = 12.0
#: A wait is at most five minutes long, and a store that refuses is asked once a minute.
RESUMED_S, PROBE_S = 6.0, 1.2
REFUSING_S = 4.8


@pytest.fixture(scope="module")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str
) -> Iterator[Ground[StoreGround]]:
    ground = Ground(lambda: StoreGround(tmp_path_factory.mktemp("matrix"), postgres, valkey, template_database))
    yield ground
    ground.clear()


@pytest.fixture
def site(grounds: Ground[StoreGround]) -> Iterator[StoreGround]:
    yield from grounds.lend()


def test_every_fault_of_the_plan_is_done_and_every_row_of_the_table_is_met() -> None:
    assert set(WAYS) == set(Fault), "say in strikes.WAYS how each fault is done"
    assert {ways[0].fault for ways in WAYS.values()} == set(Fault)
    there = {(name, cell.place.name) for cell in cells() for name in (cell.name, cell.strike.name)}
    assert rows() <= there, "the table names cells that are none"
    assert {cell.place for cell in cells()} == set(PLACES)


def test_every_fault_at_every_request_comes_to_its_end(site: StoreGround, subtests: pytest.Subtests) -> None:
    site.workers(2, **SCALED)
    run = Run(site, cells())
    run.settle()
    for cell, found in run.found().items():
        with subtests.test(str(cell)):
            assert found.struck, "the fault met no request"
            assert found.outcome == expected(cell), found.told
            assert not found.needless
    assert not site.sql("SELECT store FROM breaker"), "a store is held for unusable, although it has answered since"
    site.release_all()
    _forgive(site, run)
    assert _unforgiven(broken(site), run) == []
    site.begin()  # all of it is judged


def _forgive(site: StoreGround, run: Run) -> None:
    """Take the sessions that the store denied to have for a stranger's: nobody can clean them up."""
    denied = {cell.key for cell in run.jobs if cell.place.name == "list before abort" and cell.name in DENIED}
    unfinished = site.store.unfinished()
    assert denied <= set(unfinished)
    site.store.planted |= {unfinished[key]["session"] for key in denied}


def _unforgiven(wrong: list[str], run: Run) -> list[str]:
    """Leave out the finishes that the store answered twice because their first answer was another one."""
    again = {cell.key for cell in run.jobs if cell.place.op == "finish" and cell.name in FINISHED_AGAIN}
    return [each for each in wrong if not ("finished 2 times" in each and any(key in each for key in again))]


def enqueue(site: StoreGround, key: str, **wish: Any) -> Job:
    """A job of three slices."""
    return site.enqueue(SIZE_BYTES, key, slice_size=SLICE_WISH_BYTES, **wish)


class Deed(StrEnum):
    """What another client does at a key, all of it with other content than the job's file."""

    OBJECT = "object"
    HALF = "half"
    NAMED = "named"
    FULL = "full"

    def do(self, site: StoreGround, key: str, like: bytes) -> bytes | None:
        """Do it; return the object that it puts there. The store refuses an upload where one is already."""
        content = bytes(byte ^ 0x55 for byte in like)
        if self is Deed.OBJECT:
            return site.store.plant_object(key, content, sacred=False)
        sha = _sha1(content)
        parts = json.dumps([{"offset": 0, "datalen": len(content), "datasha": sha}])
        named: dict[str, Any] = {"sha": sha, "uploadparts": parts} if self is Deed.NAMED else {}
        most = len(content) if self is Deed.FULL else min(SLICE_BYTES, len(content) - 1)
        slices = {at: content[at : at + SLICE_BYTES] for at in range(0, most, SLICE_BYTES)}
        whole = {at: piece for at, piece in slices.items() if len(piece) == min(SLICE_BYTES, len(content) - at)}
        with suppress(ControlError):
            session = site.store.control.plant_upload(BUCKET, key, filesize=len(content), slices=whole, **named)
            site.store.planted.add(session)
        return None


def _before_others(name: str, deed: Deed) -> list[Cell]:
    """The cells of this name, once for jobs that verify the file and once for others; each with a key of its own."""
    named = [cell for cell in cells() if cell.name == name]
    return [
        replace(cell, strike=replace(cell.strike, lost=False, verified=verified), run=f"{deed} {name} {verified:d}")
        for cell in named
        for verified in (False, True)
    ]


def _judge(site: StoreGround, run: Run, objects: dict[str, bytes], subtests: pytest.Subtests) -> None:
    """Hold every object that ever was at a key against its bytes: none is a mixture, whatever became of the job."""
    published = _published(site)
    for cell, job in run.jobs.items():
        with subtests.test(f"{cell.run}: {cell}"):
            row, ours = job.row, _sha1(job.content)
            others = {_sha1(content) for content in (objects.get(job.key), b"older") if content is not None}
            assert published.get(job.key, set()) <= others | {ours}
            if row["state"] == "succeeded":
                assert ours in published[job.key]
                assert row["result"]["verified"] == "file" or not cell.strike.verified
            elif (
                cell.place.scene is not Scene.OVERWRITE and cell.place.op != "delete"
            ):  # see decision 14 for the delete
                assert site.store.object_at(job.key) == objects.get(job.key)
    site.release_all()
    wrong = [each for each in broken(site) if "finished 2 times" not in each and "is not the file" not in each]
    assert wrong == []
    site.begin()  # all of it is judged


def _sha1(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()


def _published(site: StoreGround) -> dict[str, set[str]]:
    """The digests of the bytes of every object that ever came to be, by key."""
    found: dict[str, set[str]] = {}
    for line in lines(site.store.journal):
        if line["what"] == "published":
            found.setdefault(line["path"], set()).add(line["sha1"])
    return found


@pytest.mark.parametrize("deed", Deed)
def test_another_client_uploads_other_content_at_every_request(
    site: StoreGround, deed: Deed, subtests: pytest.Subtests
) -> None:
    site.workers(2, **SCALED)
    run, objects = Run(site, _before_others("hold before", deed)), {}

    def act(job: Job) -> None:
        if (there := deed.do(site, job.key, job.content)) is not None:
            objects[job.key] = there

    run.at_each_held(act)
    run.settle()
    _judge(site, run, objects, subtests)


@pytest.mark.parametrize("deed", [Deed.HALF, Deed.NAMED, Deed.FULL])
@pytest.mark.parametrize("fault", ["cut before", "cut after"])
def test_another_client_has_left_other_content_before_every_request(
    site: StoreGround, deed: Deed, fault: str, subtests: pytest.Subtests
) -> None:
    site.workers(2, **SCALED)
    # a full upload is left alone, and what waits for a slice to fail never comes to it
    chosen = [
        cell
        for cell in _before_others(fault, deed)
        if deed is not Deed.FULL or cell.place.scene not in {Scene.RESUMED, Scene.CANCELLED}
    ]
    for cell in chosen:
        deed.do(site, cell.key, content_of(cell))
    run = Run(site, chosen)
    run.settle()
    _judge(site, run, {}, subtests)


def test_killed_with_every_request_in_flight(site: StoreGround) -> None:
    site.workers(2, **SCALED)
    holds = [cell for cell in cells() if cell.strike.fault is Fault.HOLD]
    run = Run(site, [replace(cell, strike=replace(cell.strike, lost=False), run="killed") for cell in holds])
    run.held()
    site.store.kill()
    site.store.start()
    run.settle()
    found = run.found()
    assert {str(cell): each.outcome for cell, each in found.items()} == {
        str(cell): USUAL[cell.place.scene] for cell in found
    }
    assert [str(cell) for cell, each in found.items() if each.needless] == []


def test_with_another_clock_at_every_request(site: StoreGround) -> None:
    """The signature's time is put right from the answer that refuses it, also when the clock jumps back."""
    site.workers(2, **SCALED)
    site.store.control.change(clock_offset_s=7200)
    run = Run(site, [replace(cell, run="clock") for cell in cells() if cell.name == "delay before"])
    site.until(lambda: site.store.requests(op="finish", code=0), "the first finish")
    site.store.control.change(clock_offset_s=-7200)
    run.settle()
    site.store.control.change(clock_offset_s=0)
    found = run.found()
    assert {str(cell): each.outcome for cell, each in found.items()} == {
        str(cell): USUAL[cell.place.scene] for cell in found
    }
    assert site.store.requests(code=-59)
    assert not site.sql("SELECT store FROM breaker")


class TestLies:
    @pytest.fixture(autouse=True)
    def _workers(self, site: StoreGround) -> None:
        site.workers(2, **SCALED)

    def test_a_list_that_lacks_everything_costs_a_second_upload(self, site: StoreGround) -> None:
        let_go = site.store.hold("data", "lacking", offset=2 * SLICE_BYTES)
        job = enqueue(site, "lacking")
        site.store.held("data", job.key)
        lie(site, job, slices=0)
        let_go()
        job.succeeds()
        assert "slices_missing" in job.kinds
        assert job.row["epoch"] == 1
        assert job.sent_twice_bytes() == SIZE_BYTES
        assert _attempts(site, [job]) == 0

    @pytest.mark.parametrize(("times", "found_out"), [(1, "slices_missing"), (2, "session_lost")])
    def test_a_list_that_has_what_is_not_there_ends_no_upload(
        self, site: StoreGround, times: int, found_out: str
    ) -> None:
        """Believed once it is found out at the finish; believed there too, the store itself refuses the finish."""
        key = f"having-{times}"
        site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, status=400, code=-5999, count=1)
        job = enqueue(site, key)
        assert job.fails() == "store_refused"
        lie(site, job, slices=3, count=times)
        job.act("retry")
        job.succeeds()
        assert found_out in job.kinds
        assert job.row["epoch"] == times

    def test_a_finish_that_is_acknowledged_again_and_again_without_an_object_is_no_success(
        self, site: StoreGround
    ) -> None:
        rule = site.store.control.add_rule("swallow", op="finish", path="swallowed")
        job = enqueue(site, "swallowed")
        assert job.fails() == "store_unavailable"
        assert "not to be seen" in job.view["error"]["message"]
        assert len(job.asked("finish")) == ATTEMPTS_MAX
        site.store.control.remove_rule(rule)
        job.act("retry")
        job.succeeds()

    @pytest.mark.parametrize("theirs", [{"filesize": 7, "filelen": 7}, {"biz_attr": "sliceway/another/1"}])
    def test_a_strangers_object_is_not_taken_for_ours(self, site: StoreGround, theirs: dict[str, Any]) -> None:
        key = site.fresh_key()
        data = {"filesize": SIZE_BYTES, "filelen": SIZE_BYTES, "biz_attr": "", **theirs}
        site.store.control.add_rule("raw", op="stat", path=key, count=1, status=200, body=answer(data))
        job = enqueue(site, key)
        assert job.fails() == "unproven"
        job.act("retry")
        assert job.succeeds()["proof"] == "mark"


def test_away_for_ten_minutes(site: StoreGround) -> None:
    """Nothing fails, no attempt is used, and all go on by themselves."""
    site.workers(2, **FAST)
    site.store.hold("data", "begun-*")
    begun = [enqueue(site, f"begun-{number}") for number in range(4)]
    for job in begun:
        site.store.held("data", job.key)
    site.store.kill()
    new = [enqueue(site, f"new-{number}") for number in range(4)] + [site.enqueue(1000, "new-whole")]
    jobs = begun + new
    site.until(lambda: _failing_for(site, jobs) > TEN_MINUTES_S, "ten minutes")
    assert {job.state for job in begun} == {"uploading"}
    assert {job.state for job in new} <= {"queued", "initializing"}
    view = jobs[-1].view
    assert view["error"]["code"] == "store_unavailable"
    assert view["waiting"]["failing_since"]
    site.store.start()
    for job in jobs:
        job.succeeds()
    assert {job.row["epoch"] for job in jobs} == {1}
    assert _attempts(site, jobs) == 0
    assert all(job.sent_twice_bytes() <= 3 * SLICE_BYTES for job in begun), "all three of a job were in flight"
    assert all(job.sent_twice_bytes() <= 0 for job in new)


def _failing_for(site: StoreGround, jobs: list[Job]) -> float:
    query = """SELECT coalesce(min(extract(epoch FROM now() - failing_since)) FILTER (WHERE failing), 0)::float8 AS s
               FROM (SELECT failing_since, every(failing_since IS NOT NULL) OVER () AS failing
                     FROM job WHERE id = ANY (%(ids)s::uuid[])) j"""
    return float(site.sql(query, ids=[job.id for job in jobs])[0]["s"])


def _attempts(site: StoreGround, jobs: list[Job]) -> int:
    return len(site.sql("SELECT FROM attempt WHERE job_id = ANY (%(ids)s::uuid[])", ids=[job.id for job in jobs]))


def _refused(site: StoreGround, after_s: float) -> tuple[int, float]:
    """Wait until the breaker has been open for so long; return how many slices were refused, and its age in seconds."""
    query = "SELECT extract(epoch FROM now() - opened_at)::float8 AS s FROM breaker"
    site.until(lambda: any(row["s"] > after_s for row in site.sql(query)), f"a breaker of {after_s:g} s")
    refused = len(site.store.requests(op="data", code=-97))
    [row] = site.sql(query)
    return refused, float(row["s"])


def test_refusing_for_minutes_is_asked_once_a_minute(site: StoreGround) -> None:
    site.workers(2, **FAST)
    refusal = site.store.control.add_rule("error", op="data", path="refused-*", status=403, code=-97)
    jobs = [enqueue(site, f"refused-{number}", store=UNUSABLE[0]) for number in range(4)]
    other = enqueue(site, "not-refused", store=UNUSABLE[1])
    first, began_s = _refused(site, PROBE_S / 2)
    assert first <= 2 * 3 * len(jobs), (
        "what was in flight, and what was chosen in the moment in which the breaker opened"
    )
    then, ended_s = _refused(site, REFUSING_S)
    assert 1 <= then - first <= (ended_s - began_s) / PROBE_S + 1, "a probe a minute"
    other.succeeds()
    site.store.control.remove_rule(refusal)
    for job in jobs:
        job.succeeds()
    assert not site.sql("SELECT store FROM breaker")
    assert _attempts(site, jobs) == 0


def answer(data: dict[str, Any]) -> str:
    """What the store says when all is well."""
    return json.dumps({"code": 0, "message": "SUCCESS", "request_id": "none", "data": data})


def lie(site: StoreGround, job: Job, *, slices: int, count: int = 1) -> None:
    """Let the store list so many of the job's three slices."""
    listed = [{"offset": row["offset_bytes"], "datalen": row["size_bytes"]} for row in job.slices[:slices]]
    told = {"session": job.row["session"]["session"], "slice_size": SLICE_BYTES, "filesize": SIZE_BYTES}
    body = answer({**told, "listparts": listed})
    site.store.control.add_rule("raw", op="list", path=job.key, count=count, status=200, body=body)
