"""What a drill says: a line a step, as it happens, and the figures for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from worker.doctor.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Figures:
    """What was measured; times are seconds since the kill, None for what did not happen.

    Attributes:
        job: whose slice the canary was sending.
        limit_s: within which the slice must run elsewhere.
        noticed_s: when the canary was declared dead.
        taken_over_s: when another worker claimed its slice, or at the latest had.
        succeeded_s: when the job succeeded.
        slices: of the job.
        sends: how often one of them was begun to be sent.
        bytes_sent_twice: what the canary had sent of its slice; None where others were sent again too.
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
    """Collects the steps and tells each at once."""

    say: Callable[[Finding], None]
    steps: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def add(self, finding: Finding) -> None:
        """Tell a step."""
        self.steps.append(finding)
        self.say(finding)

    def ok(self, step: str, text: str) -> None:
        """Tell a step that is as it should be."""
        self.add(Finding(step, Level.OK, text))

    def note(self, step: str, text: str) -> None:
        """Tell what is worth knowing and nobody's fault."""
        self.add(Finding(step, Level.NOTE, text))

    def failed(self, step: str, text: str, advice: str) -> None:
        """Tell a step that is not as it should be."""
        self.add(Finding(step, Level.FAILED, text, advice))

    @property
    def failures(self) -> int:
        """How many steps are not as they should be."""
        return sum(step.level is Level.FAILED for step in self.steps)

    def document(self, outcome: str) -> dict[str, Any]:
        """Return everything as JSON."""
        return {"outcome": outcome, **asdict(self.figures), "steps": [asdict(step) for step in self.steps]}
