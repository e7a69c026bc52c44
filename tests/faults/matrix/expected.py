"""The expected outcome of each cell: the usual one of its kind of job, or an exception from the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.cells import Cell, JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends.

    Attributes:
        state: the final state.
        code: of the error, if it fails.
        attempts: answers that counted as an attempt of the slice or step.
        epochs: how many sessions the job has begun.
        left_open: the job reports that it left its session open at the store.
    """

    state: str = "succeeded"
    code: str | None = None
    attempts: int = 0
    epochs: int = 1
    left_open: bool = False


USUAL: Mapping[JobKind, Outcome] = {
    JobKind.PLAIN: Outcome(),
    JobKind.WHOLE: Outcome(),
    JobKind.OVERWRITE: Outcome(),
    JobKind.RESUMED: Outcome(attempts=1),  # the refusal before the retry
    JobKind.CANCELLED: Outcome(state="cancelled"),
}

_READS = ("list before finish", "list to resume", "stat for proof", "stat before overwrite")
_ABORT_READS = ("stat before abort", "list before abort")
_ABORTS = (*_ABORT_READS, "delete")
_UPLOADS = ("init", "data", "finish", "upload", *_READS)
_ALL = (*_UPLOADS, *_ABORTS)

Change = dict[str, Any]
COUNTED: Change = {"attempts": 1}
FRESH: Change = {"epochs": 2}
LEFT_OPEN: Change = {"left_open": True}
NO_CHANGE: Change = {}


def _fails(code: str) -> Change:
    return {"state": "failed", "code": code}


def _at(requests: tuple[str, ...] | str, change: Change) -> dict[str, Change]:
    return dict.fromkeys((requests,) if isinstance(requests, str) else requests, change)


_REFUSED = _fails("store_refused")
_FOLDER = _fails("folder_exists")
_EXISTS = _fails("object_exists")
_IN_PROGRESS = _fails("upload_in_progress")

#: Fault case (with or without its side) -> request -> the difference. The first name that has the request counts.
EXCEPTIONS: Mapping[str, Mapping[str, Change]] = {
    # these answers count as attempts
    "code of retry_counted": _at(_ALL, COUNTED),
    "code of retry_counted thrice": _at(_ALL, {"attempts": 3}),
    "success without data before": _at("delete", LEFT_OPEN),
    "success without data after": _at(("finish", "upload", "delete"), NO_CHANGE),
    # an acknowledged slice counts as sent until the list before the finish
    "success without data": _at(_ALL, COUNTED) | _at("data", NO_CHANGE),
    "swallow": _at("data", NO_CHANGE)  # the list before the finish lacks it, and it is sent again
    | _at("init", FRESH)  # the session in its answer does not exist
    | _at("delete", LEFT_OPEN)
    | _at(("finish", "upload", *_READS, *_ABORT_READS), COUNTED),
    "wrong offset": _at("data", COUNTED),
    # if the store denies a session, the job begins a new one, also if the session exists
    "code of session before": _at(("init", "data", "upload", "list before finish", "list to resume"), FRESH)
    | _at(("stat for proof", "stat before overwrite", "stat before abort", "delete"), COUNTED),
    "code of session after": _at(("init", "data", "upload"), FRESH) | _at("delete", COUNTED),
    "code of missing before": _at(("data", "list before finish", "list to resume"), FRESH)
    | _at(("init", "upload"), _REFUSED)
    | _at("stat for proof", COUNTED)
    | _at("delete", LEFT_OPEN),
    "code of missing after": _at("data", FRESH) | _at(("init", "upload"), _REFUSED),
    "code of digest after": _at("finish", NO_CHANGE),
    "code of digest": _at(("init", "data", "finish"), FRESH) | _at(("upload", *_READS, *_ABORTS), COUNTED),
    "corrupt": _at("data", FRESH) | _at("upload", COUNTED),
    "lose session": _at(("data", "finish", "list before finish", "list to resume"), FRESH),
    "wrong session": _at(("init", "list before finish", "list to resume"), FRESH)
    | _at("data", COUNTED)
    | _at("list before abort", LEFT_OPEN),
    # a permanent refusal is not retried
    "code of permanent": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED),
    "code of folder": _at(_UPLOADS, _FOLDER) | _at("data", _FOLDER | COUNTED),
    "code of slice_size": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED) | _at("init", NO_CHANGE),
    "code of exists after": _at(("finish", "upload"), NO_CHANGE),  # the object is ours
    "code of exists": _at(_UPLOADS, _EXISTS) | _at("data", _EXISTS | COUNTED),
    "code of incomplete before": _at("finish", FRESH),
    "code of incomplete after": _at("finish", NO_CHANGE),
    "code of incomplete": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED),
    "code of unfinished before": _at("finish", FRESH) | _at("upload", NO_CHANGE),
    "code of unfinished after": _at("finish", NO_CHANGE),
    "code of unfinished": _at(_UPLOADS, _IN_PROGRESS) | _at("data", _IN_PROGRESS | COUNTED) | _at("init", NO_CHANGE),
    # "it is there already" counts for a slice until the list, for an object after a stat
    "code of already after": _at(("finish", "upload"), NO_CHANGE),
    "code of already": _at(_ALL, COUNTED) | _at("data", NO_CHANGE),
}

#: Cells in which a finish may have its effect and is repeated: the store gives the same answer.
REPEATED_FINISH = frozenset(
    {"code of clock after", "code of used_token after", "delay past the timeout before", "hold before"}
)
#: Cells in which the store denies at the abort a session that it keeps: the job cannot know of it.
DENIED = frozenset({"code of session before", "code of missing before"})


def expected(cell: Cell) -> Outcome:
    """The expected outcome of a cell."""
    usual, change = USUAL[cell.request.kind], _change(cell)
    return replace(usual, **change | {"attempts": usual.attempts + change.get("attempts", 0)})


def _change(cell: Cell) -> Change:
    for name in (cell.name, cell.case.name):
        if cell.request.name in EXCEPTIONS.get(name, {}):
            return EXCEPTIONS[name][cell.request.name]
    return NO_CHANGE


def rows() -> set[tuple[str, str]]:
    """The fault cases and requests of the table."""
    return {(name, request) for name, requests in EXCEPTIONS.items() for request in requests}
