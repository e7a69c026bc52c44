"""One run of many cells in one installation at the same time, and what came of each of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.cells import SLICE_BYTES, Cell, Scene
from tests.faults.matrix.expected import Outcome
from tests.faults.matrix.ground import HASTY, UNUSABLE
from tests.support.deadline import DEADLINE_S
from tests.support.job import Job
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.faults.matrix.ground import StoreGround

Row = dict[str, Any]

SIZE_BYTES = 2 * SLICE_BYTES + 1000
SLICE_WISH_BYTES = 512 * 1024
_WHOLE_BYTES = 5000
_MIB = 1024 * 1024
_LIVE = """SELECT id::text AS id, state, bytes_done, error IS NOT NULL AS failing FROM job
           WHERE id = ANY (%(ids)s::uuid[])
             AND (state NOT IN ('succeeded', 'failed', 'cancelled') OR id = ANY (%(acts)s::uuid[]))"""
_ENDS = """SELECT j.id::text AS id, j.state, j.error, j.result, j.epoch, coalesce(a.n, 0) AS attempts
           FROM job j LEFT JOIN (SELECT job_id, count(*) AS n FROM attempt GROUP BY job_id) a ON a.job_id = j.id
           WHERE j.id = ANY (%(ids)s::uuid[])"""
#: The whole matrix is looked at once a poll: no oftener than its end has to be known.
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a cell.

    Attributes:
        outcome: how its job ended.
        struck: the rule met its request.
        needless: slices that were sent again without a fault that would explain it, as (session, offset).
        told: the job's error in words.
    """

    outcome: Outcome
    struck: bool
    needless: tuple[tuple[str, int], ...]
    told: str


class Run:
    """Jobs, one a cell, all at once."""

    def __init__(self, site: StoreGround, chosen: Iterable[Cell]) -> None:
        """Make the rules and enqueue the jobs."""
        self._site = site
        self._cells = list(chosen)
        self._rules = {cell: self._arrange(cell) for cell in self._cells}
        self.jobs = dict(zip(self._cells, self._enqueue(self._cells), strict=True))
        self._ids = [job.id for job in self.jobs.values()]
        self._waiting = {job.id: cell for cell, job in self.jobs.items() if cell.place.scene in _ACTS}

    def _arrange(self, cell: Cell) -> int:
        control, scene = self._site.store.control, cell.place.scene
        if scene is Scene.OVERWRITE:
            self._site.store.plant_object(cell.key, b"older", sacred=False)
        if scene is Scene.RESUMED:
            refused = {"status": 400, "code": -5999, "count": 1}
            control.add_rule("error", op="data", path=cell.key, offset=SLICE_BYTES, **refused)
        if scene is Scene.CANCELLED:
            control.add_rule("error", op="data", path=cell.key, offset=SLICE_BYTES, status=503, code=-196)
        return control.add_rule(**cell.rule)

    def _enqueue(self, cells: Sequence[Cell]) -> list[Job]:
        stores = iter(UNUSABLE)
        contents = {cell: content_of(cell) for cell in cells}
        for cell, content in contents.items():
            (self._site.media / cell.key).write_bytes(content)
        wishes = [_wish(cell, next(stores) if cell.strike.unusable else None) for cell in cells]
        answer = self._site.api.post("/v1/jobs/batch", json={"jobs": wishes}).raise_for_status().json()
        jobs = []
        for cell, result in zip(cells, answer["results"], strict=True):
            assert result["status"] == 202, result
            path = self._site.media / cell.key
            jobs.append(self._site.note(Job(self._site, result["job"]["id"], cell.key, contents[cell], path)))
        return jobs

    def settle(self) -> None:
        """Wait until every job has ended; those that are to be retried or cancelled on the way are."""
        assert wait_until(self._settled, timeout_s=DEADLINE_S, poll_s=_POLL_S), f"jobs go on after {DEADLINE_S:g} s"

    def held(self) -> None:
        """Wait until the store holds a request of each job."""
        keys = {cell.key for cell in self._cells}

        def all_held() -> bool:
            self._settled()
            return {entry["path"] for entry in self._site.store.requests(state="held")} >= keys

        assert wait_until(all_held, timeout_s=DEADLINE_S, poll_s=_POLL_S), "not all are held"

    def at_each_held(self, act: Callable[[Job], None]) -> None:
        """Act as soon as the store holds a request of a job, and let that request go on."""
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
        """Do what is due; say whether there is nothing left to wait for."""
        live = self._site.sql(_LIVE, ids=self._ids, acts=list(self._waiting))
        for row in live:
            cell = self._waiting.get(row["id"])
            if cell is not None and _ripe(cell, row):
                self.jobs[cell].act(_ACTS[cell.place.scene])
                del self._waiting[row["id"]]
        return not live

    def found(self) -> dict[Cell, Found]:
        """What came of each cell."""
        rows = {row["id"]: row for row in self._site.sql(_ENDS, ids=self._ids)}
        struck = {rule["id"]: rule["struck"] for rule in self._site.store.control.rules()}
        needless = _needless(self._site.store.requests(op="data"))
        return {
            cell: Found(
                outcome=_outcome(rows[job.id]),
                struck=bool(struck.get(self._rules[cell])),
                needless=tuple(needless[cell.key]),
                told=(rows[job.id]["error"] or {}).get("message", ""),
            )
            for cell, job in self.jobs.items()
        }


def content_of(cell: Cell) -> bytes:
    """Return the bytes of the cell's file."""
    size = _WHOLE_BYTES if cell.place.scene is Scene.WHOLE else SIZE_BYTES
    return random.Random(cell.key).randbytes(size)


_ACTS = {Scene.RESUMED: "retry", Scene.CANCELLED: "cancel"}


def _wish(cell: Cell, store: str | None) -> Row:
    """Return what the API is asked for, in a store of the job's own if there is one."""
    strike = cell.strike
    wish: Row = {
        "source": {"kind": "file", "root": "media", "path": cell.key},
        "store": store or (HASTY if strike.lost else "main"),
        "key": cell.key,
        "overwrite": cell.place.scene is Scene.OVERWRITE,
    }
    if cell.place.scene is not Scene.WHOLE:  # so small a file would go in one request otherwise
        wish["slice_size"] = _MIB if strike.verified else SLICE_WISH_BYTES
    return wish | ({"verify": "file"} if strike.verified else {})


def _ripe(cell: Cell, row: Row) -> bool:
    if cell.place.scene is Scene.RESUMED:
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
    """Slices that the store got more often than faults explain, by key: one answer lost is one slice sent again."""
    unharmed = Counter((entry["path"], entry["session"], entry["offset"]) for entry in sends if not entry["faults"])
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for (key, session, offset), times in unharmed.items():
        if times > 1:
            found[key].append((session, offset))
    return found
