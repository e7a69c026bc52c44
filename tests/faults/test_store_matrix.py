"""Every fault of the store at every request of the engine: each comes to the end that a table has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.invariants import broken
from tests.faults.matrix.cells import PLACES, cells
from tests.faults.matrix.expected import DENIED, FINISHED_AGAIN, expected, rows
from tests.faults.matrix.ground import SCALED
from tests.faults.matrix.lent import grounds, site
from tests.faults.matrix.run import Run
from tests.faults.matrix.strikes import WAYS
from worker.emulator.faults import Fault

if TYPE_CHECKING:
    from tests.faults.matrix.ground import StoreGround

__all__ = ["grounds", "site"]

#: A busy machine included; alone it takes some 15 s.
TIME_S = 120


def test_every_fault_of_the_plan_is_done_and_every_row_of_the_table_is_met() -> None:
    assert set(WAYS) == set(Fault), "say in strikes.WAYS how each fault is done"
    assert {ways[0].fault for ways in WAYS.values()} == set(Fault)
    there = {(name, cell.place.name) for cell in cells() for name in (cell.name, cell.strike.name)}
    assert rows() <= there, "the table names cells that are none"
    assert {cell.place for cell in cells()} == set(PLACES)


@pytest.mark.timeout(240)
def test_every_fault_at_every_request_comes_to_its_end(site: StoreGround, subtests: pytest.Subtests) -> None:
    site.workers(2, **SCALED)
    run = Run(site, cells())
    run.settle(TIME_S)
    for cell, found in run.found().items():
        with subtests.test(str(cell)):
            assert found.struck, "the fault met no request"
            assert found.outcome == expected(cell), found.told
            assert not found.needless
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
