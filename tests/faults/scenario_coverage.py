"""Which scenarios reach which crash point, recorded by playing each once; all test processes share the record."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.faults.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.crash_harness import CrashHarness
    from tests.faults.scenarios import Scenario


class ScenarioCoverage:
    """The points that each scenario reaches, in a folder that the test processes of a run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def scenarios_for(self, point: str, harness: CrashHarness) -> Iterator[Scenario]:
        """Yield the scenarios that reach a point, those about its operation first."""
        operation = point.rpartition(":")[0]
        about = [scenario for scenario in SCENARIOS if any(name in operation for name in scenario.about)]
        for scenario in (*about, *(scenario for scenario in SCENARIOS if scenario not in about)):
            if point in self.reached_by(scenario, harness):
                yield scenario

    def reached_by(self, scenario: Scenario, harness: CrashHarness) -> set[str]:
        """Return the points that a scenario reaches; plays it, if no process has done so.

        Raises:
            AssertionError: it does not end as it should, although no process crashes.
        """
        recorded = self._folder / scenario.name
        with self._locked(scenario):
            if not recorded.exists():
                wrong = harness.play(scenario.play)
                assert not wrong, f"{scenario.name}, without a crash: " + "; ".join(wrong)
                recorded.write_text("\n".join(sorted(harness.fork_server.reached_by_all())))
        return set(recorded.read_text().splitlines())

    @contextmanager
    def _locked(self, scenario: Scenario) -> Iterator[None]:
        with (self._folder / f"{scenario.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
