"""A crash at any point, once, loses nothing, repeats nothing and leaves nothing waiting for ever.

`points` finds the crash points in the source, and each is a test of its own: the harness plays a scenario that reaches
the point with the point armed. The first process there is killed, and the scenario must end as without the crash.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.crash_harness import CrashHarness
from tests.faults.points import edges
from tests.faults.scenario_coverage import ScenarioCoverage
from tests.faults.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Points that no process can reach, and why.
OUT_OF_REACH = {
    "api.routes.jobs._try_out.attempt:commit:before": "a dry run always rolls back",
    "api.routes.jobs._try_out.attempt:commit:after": "a dry run always rolls back",
}
POINTS = [point for edge in edges() for point in edge.points]
TRIES = 4
"""How often a scenario is played before the next one: the test does not decide which process does what, and how soon.
On a loaded machine a worker that was declared dead by mistake may have changed the course of the first try."""


@pytest.fixture(scope="module")
def build(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[], CrashHarness]]:
    """Builds a harness, or a new one after a failure."""
    servers = [request.getfixturevalue(name) for name in ("postgres", "valkey", "template_database")]
    built: list[CrashHarness] = []

    def clean() -> CrashHarness:
        if built and built[0].dirty:
            built.pop().close()
        if not built:
            built.append(CrashHarness(tmp_path_factory.mktemp("harness"), *servers))
            built[0].live_workers()
        return built[0]

    yield clean
    for harness in built:
        harness.close()


@pytest.fixture
def harness(build: Callable[[], CrashHarness]) -> CrashHarness:
    """The harness, clean."""
    return build()


@pytest.fixture(scope="module")
def coverage(tmp_path_factory: pytest.TempPathFactory) -> ScenarioCoverage:
    own = tmp_path_factory.getbasetemp()
    return ScenarioCoverage((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "crash-points")


@pytest.mark.parametrize("point", [point for point in POINTS if point not in OUT_OF_REACH])
def test_a_death_at(point: str, harness: CrashHarness, coverage: ScenarioCoverage) -> None:
    with harness.evidence_on_failure():
        played: list[str] = []
        for scenario in (each for each in coverage.scenarios_for(point, harness) for _ in range(TRIES)):
            played.append(scenario.name)
            wrong = harness.play(scenario.play, point)
            assert not wrong, f"{scenario.name}: " + "; ".join(wrong)
            if harness.fork_server.fired(point):
                return
        assert played, "no scenario reaches this point: write one, or say in OUT_OF_REACH why there is none"
        pytest.fail(f"no process reached it in {', '.join(played)}")


def test_what_is_out_of_reach_is(harness: CrashHarness, coverage: ScenarioCoverage) -> None:
    assert set(OUT_OF_REACH) <= set(POINTS), "take these out of OUT_OF_REACH: the code has no such points"
    with harness.evidence_on_failure():
        reached = set[str]().union(*(coverage.reached_by(scenario, harness) for scenario in SCENARIOS))
    assert not reached & set(OUT_OF_REACH), "take these out of OUT_OF_REACH: they were reached"
    assert reached <= set(POINTS), "processes reached points that are not in the code"
