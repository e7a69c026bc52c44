"""One run of many cells in one installation at the same time, and the result of each."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.cells import SLICE_BYTES, Cell, JobKind
from tests.faults.matrix.expected import Outcome
from tests.faults.matrix.installation import SHORT_TIMEOUT, UNUSABLE
from tests.support.deadline import DEADLINE_S
from tests.support.job import Job, JobSpec
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.faults.matrix.installation import MatrixInstallation

Row = dict[str, Any]

SIZE_BYTES = 2 * SLICE_BYTES + 1000
REQUESTED_SLICE_BYTES = 512 * 1024
_WHOLE_BYTES = 5000
_MIB = 1024 * 1024
_LIVE = """SELECT id::text AS id, state, bytes_done, error IS NOT NULL AS failing FROM job
           WHERE id = ANY (%(ids)s::uuid[])
             AND (state NOT IN ('succeeded', 'failed', 'cancelled') OR id = ANY (%(acts)s::uuid[]))"""
_ENDS = """SELECT j.id::text AS id, j.state, j.error, j.result, j.epoch, coalesce(a.n, 0) AS attempts
           FROM job j LEFT JOIN (SELECT job_id, count(*) AS n FROM attempt GROUP BY job_id) a ON a.job_id = j.id
           WHERE j.id = ANY (%(ids)s::uuid[])"""
#: A poll reads the whole matrix: it must not run too often.
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell.

    Attributes:
        outcome: how its job ended.
        hit: the rule applied to a request.
        needless: slices that were sent again without a fault that explains it, as (session, offset).
        error: the message of the job's error.
    """

    outcome: Outcome
    hit: bool
    needless: tuple[tuple[str, int], ...]
    error: str


class Run:
    """One job for each cell, all at the same time."""

    def __init__(self, site: MatrixInstallation, chosen: Iterable[Cell]) -> None:
        """Make the rules and enqueue the jobs."""
        self._site = site
        self._cells = list(chosen)
        self._rules = {cell: self._arrange(cell) for cell in self._cells}
        self.jobs = dict(zip(self._cells, self._enqueue(self._cells), strict=True))
        self._ids = [job.id for job in self.jobs.values()]
        self._waiting = {job.id: cell for cell, job in self.jobs.items() if cell.request.kind in _ACTIONS}

    def _arrange(self, cell: Cell) -> int:
        control, kind = self._site.store.control, cell.request.kind
        if kind is JobKind.OVERWRITE:
            self._site.store.plant_object(cell.key, b"older", sacred=False)
        if kind is JobKind.RESUMED:
            refused = {"status": 400, "code": -5999, "count": 1}
            control.add_rule("error", op="data", path=cell.key, offset=SLICE_BYTES, **refused)
        if kind is JobKind.CANCELLED:
            control.add_rule("error", op="data", path=cell.key, offset=SLICE_BYTES, status=503, code=-196)
        return control.add_rule(**cell.rule)

    def _enqueue(self, cells: Sequence[Cell]) -> list[Job]:
        stores = iter(UNUSABLE)
        contents = {cell: content_of(cell) for cell in cells}
        for cell, content in contents.items():
            (self._site.media / cell.key).write_bytes(content)
        documents = [_document(cell, next(stores) if cell.case.unusable else None) for cell in cells]
        answer = self._site.api.post("/v1/jobs/batch", json={"jobs": documents}).raise_for_status().json()
        jobs = []
        for cell, result in zip(cells, answer["results"], strict=True):
            assert result["status"] == 202, result
            path = self._site.media / cell.key
            jobs.append(self._site.note(Job(self._site, result["job"]["id"], cell.key, contents[cell], path)))
        return jobs

    def settle(self) -> None:
        """Wait until every job has ended; retry or cancel the jobs whose kind asks for it."""
        assert wait_until(self._settled, timeout_s=DEADLINE_S, poll_s=_POLL_S), f"jobs go on after {DEADLINE_S:g} s"

    def held(self) -> None:
        """Wait until the store holds a request of each job."""
        keys = {cell.key for cell in self._cells}

        def all_held() -> bool:
            self._settled()
            return {entry["path"] for entry in self._site.store.requests(state="held")} >= keys

        assert wait_until(all_held, timeout_s=DEADLINE_S, poll_s=_POLL_S), "not all are held"

    def at_each_held(self, act: Callable[[Job], None]) -> None:
        """Call ``act`` as soon as the store holds a request of a job, and release that request."""
        due = {job.key: job for job in self.jobs.values()}

        def all_done() -> bool:
            self._settled()
            for entry in self._site.store.requests(state="held"):
                if job := due.pop(entry["path"], None):
                    act(job)
                    self._site.store.control.release(entry["number"])
            return not due

        assert wait_until(all_done, timeout_s=DEADLINE_S, poll_s=_POLL_S), "not all were held"

    def _settled(self) -> bool:
        """Retry and cancel the jobs that are due; true if every job has ended."""
        live = self._site.sql(_LIVE, ids=self._ids, acts=list(self._waiting))
        for row in live:
            cell = self._waiting.get(row["id"])
            if cell is not None and _is_due(cell, row):
                self.jobs[cell].act(_ACTIONS[cell.request.kind])
                del self._waiting[row["id"]]
        return not live

    def results(self) -> dict[Cell, CellResult]:
        """The result of each cell."""
        rows = {row["id"]: row for row in self._site.sql(_ENDS, ids=self._ids)}
        hit = {rule["id"]: rule["struck"] for rule in self._site.store.control.rules()}
        needless = _needless(self._site.store.requests(op="data"))
        return {
            cell: CellResult(
                outcome=_outcome(rows[job.id]),
                hit=bool(hit.get(self._rules[cell])),
                needless=tuple(needless[cell.key]),
                error=(rows[job.id]["error"] or {}).get("message", ""),
            )
            for cell, job in self.jobs.items()
        }


def content_of(cell: Cell) -> bytes:
    """Return the bytes of the cell's file."""
    size = _WHOLE_BYTES if cell.request.kind is JobKind.WHOLE else SIZE_BYTES
    return random.Random(cell.key).randbytes(size)


_ACTIONS = {JobKind.RESUMED: "retry", JobKind.CANCELLED: "cancel"}


def _document(cell: Cell, store: str | None) -> Row:
    """Return the request's document, in a store of the job's own if there is one."""
    case = cell.case
    document = JobSpec(cell.key, cell.key, {"overwrite": cell.request.kind is JobKind.OVERWRITE}).document
    document["store"] = store or (SHORT_TIMEOUT if case.answer_late else "main")
    if cell.request.kind is not JobKind.WHOLE:  # otherwise so small a file is uploaded in one request
        document["slice_size"] = _MIB if case.verified else REQUESTED_SLICE_BYTES
    return document | ({"verify": "file"} if case.verified else {})


def _is_due(cell: Cell, row: Row) -> bool:
    if cell.request.kind is JobKind.RESUMED:
        return bool(row["state"] == "failed")
    return bool(row["failing"] and row["bytes_done"] == SIZE_BYTES - SLICE_BYTES)


def _outcome(row: Row) -> Outcome:
    return Outcome(
        state=row["state"],
        code=(row["error"] or {}).get("code"),
        attempts=row["attempts"],
        epochs=row["epoch"],
        left_open="session_left_open" in (row["result"] or {}),
    )


def _needless(sends: Iterable[Row]) -> defaultdict[str, list[tuple[str, int]]]:
    """By key, the slices that the store received more often than faults explain: a lost answer explains one resend."""
    unharmed = Counter((entry["path"], entry["session"], entry["offset"]) for entry in sends if not entry["faults"])
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for (key, session, offset), times in unharmed.items():
        if times > 1:
            found[key].append((session, offset))
    return found
