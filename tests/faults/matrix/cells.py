"""The cells of the matrix: every fault case at every request of the engine to the store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.fault_cases import FAULT_CASES, FaultCase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SLICE_BYTES = 64 * 1024


class JobKind(StrEnum):
    """How a job is set up, so that it sends the request."""

    PLAIN = "plain"
    """Three slices, and a finish."""
    WHOLE = "whole"
    """A small file, in one request."""
    OVERWRITE = "overwrite"
    """Three slices and a finish; the job may replace an object."""
    RESUMED = "resumed"
    """A slice is refused for good; an operator retries the job."""
    CANCELLED = "cancelled"
    """A slice always fails; an operator cancels the job."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A request of the engine.

    Attributes:
        name: of the request.
        op: the operation.
        kind: of the job that sends it.
        conditions: of the rule, beside op and path.
    """

    name: str
    op: str
    kind: JobKind = JobKind.PLAIN
    conditions: tuple[tuple[str, Any], ...] = ()


REQUESTS = (
    StoreRequest("init", "init"),
    StoreRequest("data", "data", conditions=(("offset", SLICE_BYTES),)),
    StoreRequest("list before finish", "list"),
    StoreRequest("finish", "finish"),
    StoreRequest("stat for proof", "stat"),
    StoreRequest("upload", "upload", JobKind.WHOLE),
    StoreRequest("stat before overwrite", "stat", JobKind.OVERWRITE),
    StoreRequest("list to resume", "list", JobKind.RESUMED),
    StoreRequest("stat before abort", "stat", JobKind.CANCELLED),
    StoreRequest("list before abort", "list", JobKind.CANCELLED),
    StoreRequest("delete", "delete", JobKind.CANCELLED),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault case at one request of one job; `run` makes its key unique among all runs in the same store."""

    case: FaultCase
    request: StoreRequest
    name: str
    side: str
    run: str = "matrix"

    def __str__(self) -> str:
        return f"{self.name} at {self.request.name}"

    @property
    def key(self) -> str:
        """The key of its object, which no other job has."""
        return re.sub(r"\W+", "-", f"{self.run} {self.request.name} {self.name}")

    @property
    def rule(self) -> Mapping[str, Any]:
        """The emulator's rule."""
        fault = {"fault": self.case.fault.value, "when": self.side, "count": 1, **self.case.fields}
        return {**fault, "op": self.request.op, "path": self.key, **dict(self.request.conditions)}


def cells() -> Iterator[Cell]:
    """Yield all cells, in an order that mixes fast and slow ones."""
    for case in (case for cases in FAULT_CASES.values() for case in cases):
        for request in REQUESTS:
            for name, side in case.at(request.op):
                yield Cell(case, request, name, side)
