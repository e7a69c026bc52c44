"""What is to come of each cell: the usual end of its scene, and by table where it is another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.faults.matrix.cells import Cell, Scene

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends.

    Attributes:
        state: the final state.
        code: of the error, if it fails.
        attempts: answers that were counted as the slice's or step's own fault.
        epochs: sessions that were begun.
        left_open: the job says that it left its session at the store.
    """

    state: str = "succeeded"
    code: str | None = None
    attempts: int = 0
    epochs: int = 1
    left_open: bool = False


USUAL: Mapping[Scene, Outcome] = {
    Scene.PLAIN: Outcome(),
    Scene.WHOLE: Outcome(),
    Scene.OVERWRITE: Outcome(),
    Scene.RESUMED: Outcome(attempts=1),  # the refusal that had it retried
    Scene.CANCELLED: Outcome(state="cancelled"),
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
USUALLY: Change = {}


def _fails(code: str) -> Change:
    return {"state": "failed", "code": code}


def _at(places: tuple[str, ...] | str, change: Change) -> dict[str, Change]:
    return dict.fromkeys((places,) if isinstance(places, str) else places, change)


_REFUSED = _fails("store_refused")
_FOLDER = _fails("folder_exists")
_EXISTS = _fails("object_exists")
_IN_PROGRESS = _fails("upload_in_progress")

#: Strike (with or without its side) -> place -> what is not as usual. The first name that has the place counts.
ODD: Mapping[str, Mapping[str, Change]] = {
    # answers that are the request's own fault are counted
    "code of retry_counted": _at(_ALL, COUNTED),
    "code of retry_counted thrice": _at(_ALL, {"attempts": 3}),
    "success without data before": _at("delete", LEFT_OPEN),
    "success without data after": _at(("finish", "upload", "delete"), USUALLY),
    # a slice that nobody contradicts is believed until the list before the finish
    "success without data": _at(_ALL, COUNTED) | _at("data", USUALLY),
    "swallow": _at("data", USUALLY)  # found missing before the finish, and sent again
    | _at("init", FRESH)  # the session that it gave is none
    | _at("delete", LEFT_OPEN)
    | _at(("finish", "upload", *_READS, *_ABORT_READS), COUNTED),
    "wrong offset": _at("data", COUNTED),
    # what is said to be gone is begun afresh, also where it is there
    "code of session before": _at(("init", "data", "upload", "list before finish", "list to resume"), FRESH)
    | _at(("stat for proof", "stat before overwrite", "stat before abort", "delete"), COUNTED),
    "code of session after": _at(("init", "data", "upload"), FRESH) | _at("delete", COUNTED),
    "code of missing before": _at(("data", "list before finish", "list to resume"), FRESH)
    | _at(("init", "upload"), _REFUSED)
    | _at("stat for proof", COUNTED)
    | _at("delete", LEFT_OPEN),
    "code of missing after": _at("data", FRESH) | _at(("init", "upload"), _REFUSED),
    "code of digest after": _at("finish", USUALLY),
    "code of digest": _at(("init", "data", "finish"), FRESH) | _at(("upload", *_READS, *_ABORTS), COUNTED),
    "corrupt": _at("data", FRESH) | _at("upload", COUNTED),
    "lose session": _at(("data", "finish", "list before finish", "list to resume"), FRESH),
    "wrong session": _at(("init", "list before finish", "list to resume"), FRESH)
    | _at("data", COUNTED)
    | _at("list before abort", LEFT_OPEN),
    # what the store refuses for good, the job does not try again
    "code of permanent": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED),
    "code of folder": _at(_UPLOADS, _FOLDER) | _at("data", _FOLDER | COUNTED),
    "code of slice_size": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED) | _at("init", USUALLY),
    "code of exists after": _at(("finish", "upload"), USUALLY),  # the object is ours
    "code of exists": _at(_UPLOADS, _EXISTS) | _at("data", _EXISTS | COUNTED),
    "code of incomplete before": _at("finish", FRESH),
    "code of incomplete after": _at("finish", USUALLY),
    "code of incomplete": _at(_UPLOADS, _REFUSED) | _at("data", _REFUSED | COUNTED),
    "code of unfinished before": _at("finish", FRESH) | _at("upload", USUALLY),
    "code of unfinished after": _at("finish", USUALLY),
    "code of unfinished": _at(_UPLOADS, _IN_PROGRESS) | _at("data", _IN_PROGRESS | COUNTED) | _at("init", USUALLY),
    # "it is there already" is believed of a slice until the list, of an object after a look
    "code of already after": _at(("finish", "upload"), USUALLY),
    "code of already": _at(_ALL, COUNTED) | _at("data", USUALLY),
}

#: Cells whose request for the finish may have its effect, and come again: the store answers it as before.
FINISHED_AGAIN = frozenset(
    {"code of clock after", "code of used_token after", "delay past patience before", "hold before"}
)
#: Cells in which the store denies at the abort to have a session that it keeps: nobody can know of it.
DENIED = frozenset({"code of session before", "code of missing before"})


def expected(cell: Cell) -> Outcome:
    """What is to come of a cell."""
    usual, change = USUAL[cell.place.scene], _change(cell)
    return replace(usual, **change | {"attempts": usual.attempts + change.get("attempts", 0)})


def _change(cell: Cell) -> Change:
    for name in (cell.name, cell.strike.name):
        if cell.place.name in ODD.get(name, {}):
            return ODD[name][cell.place.name]
    return USUALLY


def rows() -> set[tuple[str, str]]:
    """What the table names: strikes and places."""
    return {(name, place) for name, places in ODD.items() for place in places}
