"""The worlds that are searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.explorer.state import Fault, ForeignAction, World

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The test searches them whole.
SMALL: Mapping[str, World] = {
    "two slices, a crash anywhere": World(faults=1, kinds=frozenset({Fault.CRASH})),
    "one slice, one fault of any kind anywhere": World(slices=1, faults=1),
    "one slice, a cancel and a retry": World(slices=1, cancels=1, retries=1),
    "one slice, a worker cut off from the database": World(
        slices=1, faults=1, kinds=frozenset({Fault.PAUSE, Fault.CUT_OFF})
    ),
    "one slice, a lease ends, a cancel": World(slices=1, faults=1, kinds=frozenset({Fault.LAPSE}), cancels=1),
    "one slice, another client acts": World(slices=1, foreign_actions=1),
    "verified, half of another file is there, a crash": World(
        verified=True, predecessor=ForeignAction.BEGIN_HALF, faults=1, kinds=frozenset({Fault.CRASH})
    ),
    "verified, half of the same file is there, a crash": World(
        verified=True, predecessor=ForeignAction.BEGIN_SAME, faults=1, kinds=frozenset({Fault.CRASH})
    ),
    "verified, half of the same file is there, and the list does not say so": World(
        verified=True, predecessor=ForeignAction.BEGIN_SAME, named=False, marked=False
    ),
    "verified, another's upload is there and goes on": World(
        verified=True, marked=False, predecessor=ForeignAction.BEGIN_NAMED, foreign_actions=1
    ),
    "one slice verified, another client acts": World(slices=1, verified=True, foreign_actions=1),
    "one request, one fault, a cancel": World(slices=0, faults=1, cancels=1),
    "one request over an object, one fault": World(slices=0, overwrite=True, existed=True, faults=1),
}
#: `python -m tests.faults.explorer` searches them, for minutes.
LARGE: Mapping[str, World] = {
    "two slices, one fault, a cancel and a retry": World(faults=1, cancels=1, retries=1),
    "one slice, one fault, a cancel and a retry": World(slices=1, faults=1, cancels=1, retries=1),
    "two slices, two faults": World(faults=2),
    "two slices, one fault, another client acts": World(faults=1, foreign_actions=1),
    "two slices verified, one fault, another client acts": World(verified=True, faults=1, foreign_actions=1),
    "verified over an object, half of another file is there, one fault": World(
        verified=True, overwrite=True, existed=True, marked=False, predecessor=ForeignAction.BEGIN_HALF, faults=1
    ),
    "two slices over an object, one fault, a cancel": World(overwrite=True, existed=True, faults=1, cancels=1),
    "one slice, two faults, a cancel, another client acts": World(slices=1, faults=2, cancels=1, foreign_actions=1),
    "one request, two faults, a cancel and a retry, another client acts": World(
        slices=0, faults=2, cancels=1, retries=1, foreign_actions=1
    ),
}
