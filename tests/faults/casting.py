"""Which story is told for which point: learnt by telling each once with nobody dying, shared by all test processes."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.faults.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.scenarios import Scenario
    from tests.faults.stage import Stage


class Casting:
    """What is known so far, in a folder that the test processes of a run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def scenarios_for(self, point: str, stage: Stage) -> Iterator[Scenario]:
        """Yield the stories that come by a point, those about its operation first."""
        operation = point.rpartition(":")[0]
        about = [scenario for scenario in SCENARIOS if any(word in operation for word in scenario.about)]
        for scenario in (*about, *(scenario for scenario in SCENARIOS if scenario not in about)):
            if point in self.reached_by(scenario, stage):
                yield scenario

    def reached_by(self, scenario: Scenario, stage: Stage) -> set[str]:
        """Return the points that a story comes by; tells it, if that has not been done.

        Raises:
            AssertionError: it does not end as it should, although nobody dies.
        """
        learnt = self._folder / scenario.name
        with self._locked(scenario):
            if not learnt.exists():
                wrong = stage.play(scenario.play)
                assert not wrong, f"{scenario.name}, with nobody dying: " + "; ".join(wrong)
                learnt.write_text("\n".join(sorted(stage.nursery.reached_by_all())))
        return set(learnt.read_text().splitlines())

    @contextmanager
    def _locked(self, scenario: Scenario) -> Iterator[None]:
        with (self._folder / f"{scenario.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
