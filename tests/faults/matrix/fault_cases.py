"""Every fault of the emulator, with its variants."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.emulator.core.faults import Fault
from worker.emulator.cos_json.errors import CosError
from worker.stores.cos_json.errors import CODES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Longer than the answer timeout of the store `short-timeout`, shorter than any deadline.
TOO_LONG_S = 3.0
HTML = "<html>not what you came for</html>"

#: Operations with an effect: a fault may come before or after it.
CHANGING = frozenset({"init", "data", "finish", "upload", "delete"})
ALL = CHANGING | {"list", "stat"}
_BEFORE = ("before",)
_BOTH = ("before", "after")


@dataclass(frozen=True, slots=True)
class FaultCase:
    """A rule for the emulator.

    Attributes:
        name: of the case.
        fault: of the rule.
        fields: of the rule.
        ops: the operations to which it applies.
        sides: before or after the effect; reads have no effect and only one side.
        unusable: it opens the store's breaker, so that the job needs a store of its own.
        answer_late: the answer comes after the client's timeout.
        verified: only a verified upload can detect it.
    """

    name: str
    fault: Fault
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ops: frozenset[str] = ALL
    sides: tuple[str, ...] = _BEFORE
    unusable: bool = False
    answer_late: bool = False
    verified: bool = False

    def at(self, op: str) -> Iterator[tuple[str, str]]:
        """Yield its variants for an operation: the name, and the rule's `when`."""
        if op not in self.ops:
            return
        for side in self.sides if op in CHANGING else _BEFORE:
            yield self.name + (f" {side}" if self.sides == _BOTH else ""), side


_UNUSABLE = frozenset({Kind.UNUSABLE, Kind.CLOCK})


def code_of(kind: Kind) -> int:
    """The first code of a kind in the driver's table."""
    return next(code for code, (each, _) in CODES.items() if each is kind)


def _errors() -> Iterator[FaultCase]:
    for kind in Kind:
        code = code_of(kind)
        fields = {"code": code, "status": CosError(code).status}
        yield FaultCase(f"code of {kind}", Fault.ERROR, fields, sides=_BOTH, unusable=kind in _UNUSABLE)
        if kind in {Kind.RETRY, Kind.RETRY_COUNTED}:
            yield FaultCase(f"code of {kind} thrice", Fault.ERROR, fields | {"count": 3})
        if kind is Kind.PERMANENT:  # an abort retries it, after a minute
            yield FaultCase(f"code of {kind} twice", Fault.ERROR, fields | {"count": 2}, ops=frozenset({"delete"}))


def _raw(name: str, status: int, body: str = HTML, **of: Any) -> FaultCase:
    return FaultCase(name, Fault.RAW, {"status": status, "body": body}, sides=_BOTH, **of)


_EMPTY = json.dumps({"code": 0, "message": "SUCCESS", "data": {}})

#: Each fault of the emulator, with its cases. A fault that is missing here fails the test.
FAULT_CASES: Mapping[Fault, tuple[FaultCase, ...]] = {
    Fault.ERROR: tuple(_errors()),
    Fault.RAW: (
        _raw("page 200", 200),
        _raw("page 502", 502),
        _raw("page 403", 403, unusable=True),
        _raw("success without data", 200, _EMPTY),
    ),
    Fault.DELAY: (
        FaultCase("delay", Fault.DELAY, {"delay_s": 0.3}, sides=_BOTH),
        FaultCase("delay past the timeout", Fault.DELAY, {"delay_s": TOO_LONG_S}, sides=_BOTH, answer_late=True),
    ),
    Fault.HOLD: (FaultCase("hold", Fault.HOLD, sides=_BOTH, answer_late=True),),
    Fault.CUT: (FaultCase("cut", Fault.CUT, sides=_BOTH),),
    Fault.CUT_BODY: (FaultCase("cut body", Fault.CUT_BODY, {"body_bytes": 100}, ops=ALL - {"stat", "delete"}),),
    Fault.TRUNCATE: (FaultCase("truncate", Fault.TRUNCATE),),
    Fault.DRIP: (
        FaultCase("drip", Fault.DRIP, {"delay_s": 0.02}),
        FaultCase("drip past the deadline", Fault.DRIP, {"delay_s": 0.4}, ops=frozenset({"data"})),
    ),
    Fault.LOSE_SESSION: (FaultCase("lose session", Fault.LOSE_SESSION, ops=ALL - {"upload"}),),
    Fault.SLICE_SIZE: tuple(
        FaultCase(f"slice size {size}", Fault.SLICE_SIZE, {"slice_size": size}, ops=frozenset({"init"}))
        for size in (48 * 1024, 2**40)
    ),
    Fault.SERIAL: (FaultCase("serial", Fault.SERIAL, ops=frozenset({"init"})),),
    Fault.WRONG_SESSION: (FaultCase("wrong session", Fault.WRONG_SESSION, ops=frozenset({"init", "data", "list"})),),
    Fault.WRONG_OFFSET: (FaultCase("wrong offset", Fault.WRONG_OFFSET, ops=frozenset({"data"})),),
    Fault.SWALLOW: (FaultCase("swallow", Fault.SWALLOW),),
    Fault.CORRUPT: (
        FaultCase("corrupt", Fault.CORRUPT, ops=frozenset({"data"}), verified=True),
        FaultCase("corrupt", Fault.CORRUPT, ops=frozenset({"upload"})),
    ),
}
