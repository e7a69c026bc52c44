"""The arguments of a task, read as untrusted: any client of the broker may have written them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from worker.jobs.task_names import TaskName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = frozenset({"job", "number", "token", "epoch", "alone"})
_INTEGER, _BIGINT = 2**31, 2**63
"""What the columns hold: a larger number would be an error of the database in the middle of a claim."""


class Malformed(ValueError):
    """Arguments that no dispatcher gives; the text says what is wrong with them."""


class Arguments(NamedTuple):
    """What a message names: a step (`number` None) or a slice of a job, and the claim that is to be taken."""

    job: UUID
    number: int | None
    token: int
    epoch: int
    alone: bool


def read(task: str, given: Mapping[str, Any], unnamed: Sequence[Any] = ()) -> Arguments:
    """Return the arguments that a task was called with.

    Raises:
        Malformed: they are none of ours.
    """
    if unnamed:
        raise Malformed("arguments without a name")
    if not _NAMES.issuperset(given):
        raise Malformed(f"unknown arguments: {sorted(set(given) - _NAMES)}")
    number = given.get("number")
    if (task == TaskName.SLICE) != (number is not None):
        raise Malformed("number is for slices, and only for slices")
    alone = given.get("alone", False)
    if not isinstance(alone, bool):
        raise Malformed("alone is neither true nor false")
    return Arguments(
        _job(given.get("job")),
        None if number is None else _below(_INTEGER, "number", number),
        _below(_BIGINT, "token", given.get("token")),
        _below(_INTEGER, "epoch", given.get("epoch")),
        alone,
    )


def _job(given: object) -> UUID:
    if isinstance(given, str):
        try:
            return UUID(given)
        except ValueError:
            pass
    raise Malformed("job is no id")


def _below(limit: int, name: str, given: object) -> int:
    if type(given) is not int or not 0 <= given < limit:  # a bool is an int, too
        raise Malformed(f"{name} is no number of ours")
    return given
