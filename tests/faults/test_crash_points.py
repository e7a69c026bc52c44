"""Wherever a process of the product dies, once, nothing is lost, nothing is done twice and nothing waits for ever.

The points come from the source itself (`points`); each is a test of its own: a story that comes by it is told with the
point armed, so that the first process there is killed, and has to end as it would have.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.casting import Casting
from tests.faults.points import edges
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Points that nobody can come by, and why.
OUT_OF_REACH = {
    "api.routes.jobs._try_out.attempt:commit:before": "a dry run always rolls back",
    "api.routes.jobs._try_out.attempt:commit:after": "a dry run always rolls back",
}
POINTS = [point for edge in edges() for point in edge.points]
TRIES = 4
"""How often a story is told before another is: which process does what, and how soon, is not for the test to say. A
worker that a loaded machine kept silent, so that it was taken for dead, may have had its part in the one before."""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[[], Stage]]:
    """Gives the stage; a new one where the last was left in disorder."""
    servers = [request.getfixturevalue(name) for name in ("postgres", "valkey", "template_database")]
    standing: list[Stage] = []

    def give() -> Stage:
        if standing and standing[0].dirty:
            standing.pop().close()
        if not standing:
            standing.append(Stage(tmp_path_factory.mktemp("stage"), *servers))
            standing[0].crew()
        return standing[0]

    yield give
    for stage in standing:
        stage.close()


@pytest.fixture
def stage(build: Callable[[], Stage]) -> Stage:
    """The stage, clean."""
    return build()


@pytest.fixture(scope="module")
def casting(tmp_path_factory: pytest.TempPathFactory) -> Casting:
    own = tmp_path_factory.getbasetemp()
    return Casting((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "crash-points")


@pytest.mark.parametrize("point", [point for point in POINTS if point not in OUT_OF_REACH])
def test_a_death_at(point: str, stage: Stage, casting: Casting) -> None:
    with stage.shown():
        told: list[str] = []
        for scenario in (each for each in casting.scenarios_for(point, stage) for _ in range(TRIES)):
            told.append(scenario.name)
            wrong = stage.play(scenario.play, point)
            assert not wrong, f"{scenario.name}: " + "; ".join(wrong)
            if stage.nursery.fired(point):
                return
        assert told, "no scenario comes by here: write one, or say in OUT_OF_REACH why there is none"
        pytest.fail(f"nobody came by in {', '.join(told)}")


def test_what_is_out_of_reach_is(stage: Stage, casting: Casting) -> None:
    assert set(OUT_OF_REACH) <= set(POINTS), "take these out of OUT_OF_REACH: the code has no such points"
    with stage.shown():
        reached = set[str]().union(*(casting.reached_by(scenario, stage) for scenario in SCENARIOS))
    assert not reached & set(OUT_OF_REACH), "take these out of OUT_OF_REACH: they were reached"
    assert reached <= set(POINTS), "processes came by points that are not in the code"
