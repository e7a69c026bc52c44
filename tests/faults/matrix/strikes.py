"""Every way in which the emulator can treat a request badly, derived from its own list of faults."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.emulator.core.faults import Fault
from worker.emulator.cos_json.errors import CosError
from worker.stores.cos_json.errors import CODES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Longer than the profile `hasty` waits for an answer, shorter than any deadline.
TOO_LONG_S = 3.0
HTML = "<html>not what you came for</html>"

#: Operations that change something: there, it is another thing whether a fault strikes before or after the effect.
CHANGING = frozenset({"init", "data", "finish", "upload", "delete"})
ALL = CHANGING | {"list", "stat"}
_BEFORE = ("before",)
_BOTH = ("before", "after")


@dataclass(frozen=True, slots=True)
class Strike:
    """A rule for the emulator.

    Attributes:
        name: tells it from the others.
        fault: what the rule does.
        fields: of the rule.
        ops: the operations to which it can be done.
        sides: before or after the effect; reads have no effect, so nothing is after it.
        unusable: the store's breaker opens, so that the job needs a store of its own.
        lost: the answer comes so late that the client has turned away.
        verified: only a verified upload can notice it.
    """

    name: str
    fault: Fault
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ops: frozenset[str] = ALL
    sides: tuple[str, ...] = _BEFORE
    unusable: bool = False
    lost: bool = False
    verified: bool = False

    def at(self, op: str) -> Iterator[tuple[str, str]]:
        """The ways to do it to an operation: its name there, and the rule's `when`."""
        if op not in self.ops:
            return
        for side in self.sides if op in CHANGING else _BEFORE:
            yield self.name + (f" {side}" if self.sides == _BOTH else ""), side


_UNUSABLE = frozenset({Kind.UNUSABLE, Kind.CLOCK})


def code_of(kind: Kind) -> int:
    """The code that stands for a kind: the first of the driver's table."""
    return next(code for code, (each, _) in CODES.items() if each is kind)


def _errors() -> Iterator[Strike]:
    for kind in Kind:
        code = code_of(kind)
        fields = {"code": code, "status": CosError(code).status}
        yield Strike(f"code of {kind}", Fault.ERROR, fields, sides=_BOTH, unusable=kind in _UNUSABLE)
        if kind in {Kind.RETRY, Kind.RETRY_COUNTED}:
            yield Strike(f"code of {kind} thrice", Fault.ERROR, fields | {"count": 3})
        if kind is Kind.PERMANENT:  # an abort goes on nevertheless, after a minute
            yield Strike(f"code of {kind} twice", Fault.ERROR, fields | {"count": 2}, ops=frozenset({"delete"}))


def _raw(name: str, status: int, body: str = HTML, **of: Any) -> Strike:
    return Strike(name, Fault.RAW, {"status": status, "body": body}, sides=_BOTH, **of)


_EMPTY = json.dumps({"code": 0, "message": "SUCCESS", "data": {}})

#: Each fault of the plan, and the ways in which it is done. A fault that is not here fails the test.
WAYS: Mapping[Fault, tuple[Strike, ...]] = {
    Fault.ERROR: tuple(_errors()),
    Fault.RAW: (
        _raw("page 200", 200),
        _raw("page 502", 502),
        _raw("page 403", 403, unusable=True),
        _raw("success without data", 200, _EMPTY),
    ),
    Fault.DELAY: (
        Strike("delay", Fault.DELAY, {"delay_s": 0.3}, sides=_BOTH),
        Strike("delay past patience", Fault.DELAY, {"delay_s": TOO_LONG_S}, sides=_BOTH, lost=True),
    ),
    Fault.HOLD: (Strike("hold", Fault.HOLD, sides=_BOTH, lost=True),),
    Fault.CUT: (Strike("cut", Fault.CUT, sides=_BOTH),),
    Fault.CUT_BODY: (Strike("cut body", Fault.CUT_BODY, {"body_bytes": 100}, ops=ALL - {"stat", "delete"}),),
    Fault.TRUNCATE: (Strike("truncate", Fault.TRUNCATE),),
    Fault.DRIP: (
        Strike("drip", Fault.DRIP, {"delay_s": 0.02}),
        Strike("drip past the deadline", Fault.DRIP, {"delay_s": 0.4}, ops=frozenset({"data"})),
    ),
    Fault.LOSE_SESSION: (Strike("lose session", Fault.LOSE_SESSION, ops=ALL - {"upload"}),),
    Fault.SLICE_SIZE: tuple(
        Strike(f"slice size {size}", Fault.SLICE_SIZE, {"slice_size": size}, ops=frozenset({"init"}))
        for size in (48 * 1024, 2**40)
    ),
    Fault.SERIAL: (Strike("serial", Fault.SERIAL, ops=frozenset({"init"})),),
    Fault.WRONG_SESSION: (Strike("wrong session", Fault.WRONG_SESSION, ops=frozenset({"init", "data", "list"})),),
    Fault.WRONG_OFFSET: (Strike("wrong offset", Fault.WRONG_OFFSET, ops=frozenset({"data"})),),
    Fault.SWALLOW: (Strike("swallow", Fault.SWALLOW),),
    Fault.CORRUPT: (
        Strike("corrupt", Fault.CORRUPT, ops=frozenset({"data"}), verified=True),
        Strike("corrupt", Fault.CORRUPT, ops=frozenset({"upload"})),
    ),
}
