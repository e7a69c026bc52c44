"""What the clients of a run may expect: the jobs that the service has accepted."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.chaos.workload import Variant

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.workload import JobRequest


@dataclass(slots=True)
class AcceptedJob:
    """A job that the service has accepted."""

    id: str
    request: JobRequest
    at: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    retries: int = 0


class Expectations:
    """Every accepted job by its id, and every error of the service or the harness."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self.jobs: dict[str, AcceptedJob] = {}
        self.errors: list[str] = []

    def accepted(self, request: JobRequest, id_: str) -> None:
        """Record that the service has accepted a request; a repeated request must get the same job."""
        with self._lock:
            first = self.jobs.setdefault(id_, AcceptedJob(id_, request)).request
            if first.number != request.number:
                self.errors.append(f"job {id_} was the answer to requests {first.number} and {request.number}")

    def error(self, text: str) -> None:
        """Record an error."""
        with self._lock:
            self.errors.append(text)

    def to_cancel(self, younger_than_s: float) -> list[AcceptedJob]:
        """The jobs that an operator should cancel by now: each at an age of its own, below the given one."""
        now = time.monotonic()
        with self._lock:
            return [
                job
                for job in self.jobs.values()
                if job.request.variant is Variant.CANCEL
                and not job.cancelled
                and now - job.at >= younger_than_s * (job.request.number % 97) / 97
            ]

    def sample(self, chance: random.Random, count: int) -> list[AcceptedJob]:
        """A few jobs, among the latest."""
        with self._lock:
            latest = list(self.jobs.values())[-20 * count :]
        return chance.sample(latest, min(count, len(latest)))
