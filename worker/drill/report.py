"""The report of a drill: a line for each step as it happens, and the measured figures for `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from worker.doctor.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(slots=True)
class Figures:
    """The measurements. Times are seconds since the kill; None stands for what did not happen.

    Attributes:
        job: the job whose slice the canary was sending.
        limit_s: time within which another worker must claim the slice.
        noticed_s: when the dispatcher declared the canary dead.
        taken_over_s: when another worker claimed the slice, or an upper bound of it.
        succeeded_s: when the job succeeded.
        slices: number of slices of the job.
        sends: number of times that a worker began to send one of them.
        bytes_sent_twice: bytes that the canary had sent of its slice; None if other slices were sent twice, too.
    """

    job: str | None = None
    limit_s: float | None = None
    noticed_s: float | None = None
    taken_over_s: float | None = None
    succeeded_s: float | None = None
    slices: int | None = None
    sends: int | None = None
    bytes_sent_twice: int | None = None


@dataclass(slots=True)
class Report:
    """Collects the steps and prints each at once."""

    print_step: Callable[[Finding], None]
    steps: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def add(self, finding: Finding) -> None:
        """Report a step."""
        self.steps.append(finding)
        self.print_step(finding)

    def ok(self, step: str, text: str) -> None:
        """Report a step that succeeded."""
        self.add(Finding(step, Level.OK, text))

    def note(self, step: str, text: str) -> None:
        """Report a step that neither succeeded nor failed."""
        self.add(Finding(step, Level.NOTE, text))

    def failed(self, step: str, text: str, advice: str) -> None:
        """Report a step that failed."""
        self.add(Finding(step, Level.FAILED, text, advice))

    @property
    def failures(self) -> int:
        """The number of failed steps."""
        return sum(step.level is Level.FAILED for step in self.steps)

    def document(self, outcome: str) -> Mapping[str, object]:
        """Return the document for `--json`."""
        return {"outcome": outcome, **asdict(self.figures), "steps": [asdict(step) for step in self.steps]}
