"""The cells of the matrix: every strike at every place where the engine asks the store for something."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.strikes import WAYS, Strike

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SLICE_BYTES = 64 * 1024


class Scene(StrEnum):
    """What is done with a job, so that it comes to the place."""

    PLAIN = "plain"
    """Three slices, and a finish."""
    WHOLE = "whole"
    """A small file, in one request."""
    OVERWRITE = "overwrite"
    """As plain, but an object there may be replaced."""
    RESUMED = "resumed"
    """A slice is refused for good; an operator retries the job."""
    CANCELLED = "cancelled"
    """A slice never gets through; the job is cancelled."""


@dataclass(frozen=True, slots=True)
class Place:
    """A request of the engine's.

    Attributes:
        name: tells it from the others.
        op: the operation.
        scene: of the job that sends it.
        conditions: of the rule, beside op and path.
    """

    name: str
    op: str
    scene: Scene = Scene.PLAIN
    conditions: tuple[tuple[str, Any], ...] = ()


PLACES = (
    Place("init", "init"),
    Place("data", "data", conditions=(("offset", SLICE_BYTES),)),
    Place("list before finish", "list"),
    Place("finish", "finish"),
    Place("stat for proof", "stat"),
    Place("upload", "upload", Scene.WHOLE),
    Place("stat before overwrite", "stat", Scene.OVERWRITE),
    Place("list to resume", "list", Scene.RESUMED),
    Place("stat before abort", "stat", Scene.CANCELLED),
    Place("list before abort", "list", Scene.CANCELLED),
    Place("delete", "delete", Scene.CANCELLED),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One strike at one place, to one job; `run` tells its key from those of other runs in the same store."""

    strike: Strike
    place: Place
    name: str
    side: str
    run: str = "matrix"

    def __str__(self) -> str:
        return f"{self.name} at {self.place.name}"

    @property
    def key(self) -> str:
        """The key of its object: nothing else has it."""
        return re.sub(r"\W+", "-", f"{self.run} {self.place.name} {self.name}")

    @property
    def rule(self) -> Mapping[str, Any]:
        """What the store is told."""
        what = {"fault": self.strike.fault.value, "when": self.side, "count": 1, **self.strike.fields}
        return {**what, "op": self.place.op, "path": self.key, **dict(self.place.conditions)}


def cells() -> Iterator[Cell]:
    """All cells, in an order that mixes the quick and the slow."""
    for ways in WAYS.values():
        for strike in ways:
            for place in PLACES:
                for name, side in strike.at(place.op):
                    yield Cell(strike, place, name, side)
