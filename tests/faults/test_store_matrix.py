"""Every fault of the store at every request of the engine: each job ends as a table says.

And a store that is killed with requests in flight, is down or refuses for long, answers falsely, or has another clock.
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
from tests.faults.matrix.cells import REQUESTS, SLICE_BYTES, Cell, JobKind, cells
from tests.faults.matrix.expected import DENIED, REPEATED_FINISH, USUAL, expected, rows
from tests.faults.matrix.fault_cases import FAULT_CASES
from tests.faults.matrix.installation import SCALED, UNUSABLE, MatrixInstallation
from tests.faults.matrix.run import REQUESTED_SLICE_BYTES, SIZE_BYTES, Run, content_of
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

#: Ten minutes are twelve seconds; the times that detect a death are as long as in `SCALED`.
FAST = SCALED | {
    "SLICEWAY_TIME_SCALE": "0.02",
    "SLICEWAY_HEARTBEAT_S": "10",
    "SLICEWAY_DEAD_AFTER_S": "200",
    "SLICEWAY_LEAD_S": "50",
}
TEN_MINUTES_S = 12.0
#: A wait is at most five minutes long, and a store that refuses is probed once a minute.
RESUMED_S, PROBE_S = 6.0, 1.2
REFUSING_S = 4.8


@pytest.fixture(scope="module")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str
) -> Iterator[Ground[MatrixInstallation]]:
    ground = Ground(lambda: MatrixInstallation(tmp_path_factory.mktemp("matrix"), postgres, valkey, template_database))
    yield ground
    ground.clear()


@pytest.fixture
def site(grounds: Ground[MatrixInstallation]) -> Iterator[MatrixInstallation]:
    yield from grounds.lend()


def test_every_fault_has_a_case_and_every_row_of_the_table_has_a_cell() -> None:
    assert set(FAULT_CASES) == set(Fault), "add the cases of each new fault to fault_cases.FAULT_CASES"
    assert {cases[0].fault for cases in FAULT_CASES.values()} == set(Fault)
    existing = {(name, cell.request.name) for cell in cells() for name in (cell.name, cell.case.name)}
    assert rows() <= existing, "the table has rows without a cell"
    assert {cell.request for cell in cells()} == set(REQUESTS)


def test_every_fault_at_every_request_ends_as_expected(site: MatrixInstallation, subtests: pytest.Subtests) -> None:
    site.workers(2, **SCALED)
    run = Run(site, cells())
    run.settle()
    for cell, result in run.results().items():
        with subtests.test(str(cell)):
            assert result.hit, "the fault met no request"
            assert result.outcome == expected(cell), result.error
            assert not result.needless
    assert not site.sql("SELECT store FROM breaker"), "a breaker is still open, although its store has answered since"
    site.release_all()
    _allow_denied_sessions(site, run)
    assert _without_repeated_finishes(broken(site), run) == []
    site.begin()  # all jobs are checked


def _allow_denied_sessions(site: MatrixInstallation, run: Run) -> None:
    """Treat the sessions that the store has denied as foreign: the job cannot know that they exist."""
    denied = {cell.key for cell in run.jobs if cell.request.name == "list before abort" and cell.name in DENIED}
    unfinished = site.store.unfinished()
    assert denied <= set(unfinished)
    site.store.planted |= {unfinished[key]["session"] for key in denied}


def _without_repeated_finishes(wrong: list[str], run: Run) -> list[str]:
    """Leave out the finishes that a job had to repeat because a fault changed the first answer."""
    repeated = {cell.key for cell in run.jobs if cell.request.op == "finish" and cell.name in REPEATED_FINISH}
    return [each for each in wrong if not ("finished 2 times" in each and any(key in each for key in repeated))]


def enqueue(site: MatrixInstallation, key: str, **fields: Any) -> Job:
    """A job of three slices."""
    return site.enqueue(SIZE_BYTES, key, slice_size=REQUESTED_SLICE_BYTES, **fields)


class ForeignAction(StrEnum):
    """What another client does at a key, with other content than the job's file."""

    OBJECT = "object"
    HALF = "half"
    NAMED = "named"
    FULL = "full"

    def perform(self, site: MatrixInstallation, key: str, like: bytes) -> bytes | None:
        """Perform it; return the object that it puts there, if any. The store refuses a second upload at a key."""
        content = bytes(byte ^ 0x55 for byte in like)
        if self is ForeignAction.OBJECT:
            return site.store.plant_object(key, content, sacred=False)
        sha = _sha1(content)
        parts = json.dumps([{"offset": 0, "datalen": len(content), "datasha": sha}])
        named: dict[str, Any] = {"sha": sha, "uploadparts": parts} if self is ForeignAction.NAMED else {}
        end = len(content) if self is ForeignAction.FULL else min(SLICE_BYTES, len(content) - 1)
        slices = {at: content[at : at + SLICE_BYTES] for at in range(0, end, SLICE_BYTES)}
        whole = {at: piece for at, piece in slices.items() if len(piece) == min(SLICE_BYTES, len(content) - at)}
        with suppress(ControlError):
            session = site.store.control.plant_upload(BUCKET, key, filesize=len(content), slices=whole, **named)
            site.store.planted.add(session)
        return None


def _with_foreign_client(name: str, action: ForeignAction) -> list[Cell]:
    """The cells of this name, for jobs with and without `verify: file`; each has a key of its own."""
    named = [cell for cell in cells() if cell.name == name]
    return [
        replace(
            cell, case=replace(cell.case, answer_late=False, verified=verified), run=f"{action} {name} {verified:d}"
        )
        for cell in named
        for verified in (False, True)
    ]


def _check(site: MatrixInstallation, run: Run, objects: dict[str, bytes], subtests: pytest.Subtests) -> None:
    """Check every object that ever was at a key: none is a mixture, however the job ended."""
    published = _published(site)
    for cell, job in run.jobs.items():
        with subtests.test(f"{cell.run}: {cell}"):
            row, ours = job.row, _sha1(job.content)
            others = {_sha1(content) for content in (objects.get(job.key), b"older") if content is not None}
            assert published.get(job.key, set()) <= others | {ours}
            if row["state"] == "succeeded":
                assert ours in published[job.key]
                assert row["result"]["verified"] == "file" or not cell.case.verified
            elif (
                cell.request.kind is not JobKind.OVERWRITE and cell.request.op != "delete"
            ):  # see decision 14 for the delete
                assert site.store.object_at(job.key) == objects.get(job.key)
    site.release_all()
    wrong = [each for each in broken(site) if "finished 2 times" not in each and "is not the file" not in each]
    assert wrong == []
    site.begin()  # all jobs are checked


def _sha1(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()


def _published(site: MatrixInstallation) -> dict[str, set[str]]:
    """The digests of all published objects, by key."""
    found: dict[str, set[str]] = {}
    for line in lines(site.store.journal):
        if line["what"] == "published":
            found.setdefault(line["path"], set()).add(line["sha1"])
    return found


@pytest.mark.parametrize("action", ForeignAction)
def test_another_client_uploads_other_content_at_every_request(
    site: MatrixInstallation, action: ForeignAction, subtests: pytest.Subtests
) -> None:
    site.workers(2, **SCALED)
    run, objects = Run(site, _with_foreign_client("hold before", action)), {}

    def act(job: Job) -> None:
        if (planted := action.perform(site, job.key, job.content)) is not None:
            objects[job.key] = planted

    run.at_each_held(act)
    run.settle()
    _check(site, run, objects, subtests)


@pytest.mark.parametrize("action", [ForeignAction.HALF, ForeignAction.NAMED, ForeignAction.FULL])
@pytest.mark.parametrize("fault", ["cut before", "cut after"])
def test_another_client_has_left_other_content_before_every_request(
    site: MatrixInstallation, action: ForeignAction, fault: str, subtests: pytest.Subtests
) -> None:
    site.workers(2, **SCALED)
    # the job does not touch a full upload, so that these kinds of jobs never send the slice that must fail
    chosen = [
        cell
        for cell in _with_foreign_client(fault, action)
        if action is not ForeignAction.FULL or cell.request.kind not in {JobKind.RESUMED, JobKind.CANCELLED}
    ]
    for cell in chosen:
        action.perform(site, cell.key, content_of(cell))
    run = Run(site, chosen)
    run.settle()
    _check(site, run, {}, subtests)


def test_killed_with_every_request_in_flight(site: MatrixInstallation) -> None:
    site.workers(2, **SCALED)
    holds = [cell for cell in cells() if cell.case.fault is Fault.HOLD]
    run = Run(site, [replace(cell, case=replace(cell.case, answer_late=False), run="killed") for cell in holds])
    run.held()
    site.store.kill()
    site.store.start()
    run.settle()
    _assert_usual(run)
    assert [str(cell) for cell, each in run.results().items() if each.needless] == []


def _assert_usual(run: Run) -> None:
    assert {str(cell): each.outcome for cell, each in run.results().items()} == {
        str(cell): USUAL[cell.request.kind] for cell in run.jobs
    }


def test_with_another_clock_at_every_request(site: MatrixInstallation) -> None:
    """The driver corrects the signature's time by the answer that refuses it, also when the clock jumps back."""
    site.workers(2, **SCALED)
    site.store.control.change(clock_offset_s=7200)
    run = Run(site, [replace(cell, run="clock") for cell in cells() if cell.name == "delay before"])
    site.until(lambda: site.store.requests(op="finish", code=0), "the first finish")
    site.store.control.change(clock_offset_s=-7200)
    run.settle()
    site.store.control.change(clock_offset_s=0)
    _assert_usual(run)
    assert site.store.requests(code=-59)
    assert not site.sql("SELECT store FROM breaker")


class TestFalseAnswers:
    @pytest.fixture(autouse=True)
    def _workers(self, site: MatrixInstallation) -> None:
        site.workers(2, **SCALED)

    def test_a_list_that_lacks_everything_costs_a_second_upload(self, site: MatrixInstallation) -> None:
        release = site.store.hold("data", "lacking", offset=2 * SLICE_BYTES)
        job = enqueue(site, "lacking")
        site.store.held("data", job.key)
        list_slices(site, job, slices=0)
        release()
        job.succeeds()
        assert "slices_missing" in job.kinds
        assert job.row["epoch"] == 1
        assert job.sent_twice_bytes() == SIZE_BYTES
        assert _attempts(site, [job]) == 0

    @pytest.mark.parametrize(("times", "detected_as"), [(1, "slices_missing"), (2, "session_lost")])
    def test_a_list_with_slices_that_are_missing_ends_no_upload(
        self, site: MatrixInstallation, times: int, detected_as: str
    ) -> None:
        """A false list is detected before the finish; if that list is false, too, the store refuses the finish."""
        key = f"having-{times}"
        site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, status=400, code=-5999, count=1)
        job = enqueue(site, key)
        assert job.fails() == "store_refused"
        list_slices(site, job, slices=3, count=times)
        job.act("retry")
        job.succeeds()
        assert detected_as in job.kinds
        assert job.row["epoch"] == times

    def test_a_repeated_acknowledgement_of_a_finish_without_an_object_is_no_success(
        self, site: MatrixInstallation
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
    def test_a_foreign_object_is_not_taken_for_ours(self, site: MatrixInstallation, theirs: dict[str, Any]) -> None:
        key = site.fresh_key()
        data = {"filesize": SIZE_BYTES, "filelen": SIZE_BYTES, "biz_attr": "", **theirs}
        site.store.control.add_rule("raw", op="stat", path=key, count=1, status=200, body=answer(data))
        job = enqueue(site, key)
        assert job.fails() == "unproven"
        job.act("retry")
        assert job.succeeds()["proof"] == "mark"


def test_down_for_ten_minutes(site: MatrixInstallation) -> None:
    """No job fails, no attempt is used, and all jobs continue by themselves."""
    site.workers(0)  # a leader from before may have learnt from other tests' silent stores that the link is slow
    site.know_links()
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


def _failing_for(site: MatrixInstallation, jobs: list[Job]) -> float:
    query = """SELECT coalesce(min(extract(epoch FROM now() - failing_since)) FILTER (WHERE failing), 0)::float8 AS s
               FROM (SELECT failing_since, every(failing_since IS NOT NULL) OVER () AS failing
                     FROM job WHERE id = ANY (%(ids)s::uuid[])) j"""
    return float(site.sql(query, ids=[job.id for job in jobs])[0]["s"])


def _attempts(site: MatrixInstallation, jobs: list[Job]) -> int:
    return len(site.sql("SELECT FROM attempt WHERE job_id = ANY (%(ids)s::uuid[])", ids=[job.id for job in jobs]))


def _refused(site: MatrixInstallation, after_s: float) -> tuple[int, float]:
    """Wait until the breaker has been open for so long; return the number of refused slices, and its age in seconds."""
    query = "SELECT extract(epoch FROM now() - opened_at)::float8 AS s FROM breaker"
    site.until(lambda: any(row["s"] > after_s for row in site.sql(query)), f"a breaker of {after_s:g} s")
    refused = len(site.store.requests(op="data", code=-97))
    [row] = site.sql(query)
    return refused, float(row["s"])


def test_a_store_that_refuses_for_minutes_is_probed_once_a_minute(site: MatrixInstallation) -> None:
    site.workers(2, **FAST)
    refusal = site.store.control.add_rule("error", op="data", path="refused-*", status=403, code=-97)
    jobs = [enqueue(site, f"refused-{number}", store=UNUSABLE[0]) for number in range(4)]
    other = enqueue(site, "not-refused", store=UNUSABLE[1])
    first, began_s = _refused(site, PROBE_S / 2)
    assert first <= 2 * 3 * len(jobs), (
        "the slices in flight, and those dispatched at the moment when the breaker opened"
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
    """A successful answer of the store."""
    return json.dumps({"code": 0, "message": "SUCCESS", "request_id": "none", "data": data})


def list_slices(site: MatrixInstallation, job: Job, *, slices: int, count: int = 1) -> None:
    """Let the store list so many of the job's three slices, whatever it has."""
    listed = [{"offset": row["offset_bytes"], "datalen": row["size_bytes"]} for row in job.slices[:slices]]
    upload = {"session": job.row["session"]["session"], "slice_size": SLICE_BYTES, "filesize": SIZE_BYTES}
    body = answer({**upload, "listparts": listed})
    site.store.control.add_rule("raw", op="list", path=job.key, count=count, status=200, body=body)
