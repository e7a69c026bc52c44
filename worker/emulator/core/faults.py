"""The fault plan: rules that inject faults into requests."""

from __future__ import annotations

import itertools
import random
import threading
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.emulator.core.journal import JournalEntry


class Fault(StrEnum):
    """What a rule does to a request. `before` and `after` refer to the effect of the operation."""

    #: Respond with `status` and a JSON error of `code`; 200 is allowed. With `when=after` the operation runs first.
    ERROR = "error"
    #: Respond with `status` and `body` of `content_type`.
    RAW = "raw"
    #: Wait `delay_s`.
    DELAY = "delay"
    #: Wait until the control endpoint releases the request.
    HOLD = "hold"
    #: Close the connection without a response.
    CUT = "cut"
    #: Close the connection after `body_bytes` of the request's body.
    CUT_BODY = "cut_body"
    #: Send the head and half of the response's body, then close.
    TRUNCATE = "truncate"
    #: Send the response in 16 pieces, `delay_s` before each.
    DRIP = "drip"
    #: Discard the unfinished upload at the path as if it had expired, then run the operation.
    LOSE_SESSION = "lose_session"
    #: init: impose this `slice_size`.
    SLICE_SIZE = "slice_size"
    #: init: require slices in order.
    SERIAL = "serial"
    #: data: respond with another session, or another offset, than was sent.
    WRONG_SESSION = "wrong_session"
    WRONG_OFFSET = "wrong_offset"
    #: Respond with a success and do nothing.
    SWALLOW = "swallow"
    #: data, upload: change one byte before it is stored.
    CORRUPT = "corrupt"


_WHENS = frozenset({"before", "after"})


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault and the conditions of the requests that get it. Every request meets a condition that is None."""

    fault: Fault
    when: str = "before"

    op: str | None = None
    bucket: str | None = None
    #: A glob for the whole path below the bucket; `*` matches slashes, too.
    path: str | None = None
    offset: int | None = None
    session: str | None = None
    #: Inject the fault only into the nth request that meets the conditions, counted from 1.
    nth: int | None = None
    #: Inject the fault at most so many times.
    count: int | None = None
    #: Inject the fault with this probability; `seed` makes the choices repeatable.
    probability: float | None = None
    seed: int = 0

    status: int = 503
    code: int = -196
    message: str = "injected"
    body: str = ""
    content_type: str = "text/html"
    delay_s: float = 0.0
    body_bytes: int = 0
    slice_size: int = 1024 * 1024

    id: int = 0
    matched: int = 0
    struck: int = 0
    random: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Rule:
        """The rule in a JSON object.

        Raises:
            ValueError: A field or the fault is unknown, or a value has the wrong type.
        """
        kinds = {each.name: str(each.type) for each in fields(cls) if each.name not in _INTERNAL_FIELDS}
        for name, value in given.items():
            if name not in kinds:
                raise ValueError(f"a rule has no field {name!r}; it has {', '.join(sorted(kinds))}")
            if not _fits(value, kinds[name]):
                raise ValueError(f"{name} of a rule is {kinds[name]}, not {value!r}")
        rule = cls(**{**given, "fault": Fault(given.get("fault", ""))})
        if rule.when not in _WHENS:
            raise ValueError("when of a rule is 'before' or 'after'")
        rule.random.seed(rule.seed)
        return rule

    def to_json(self) -> dict[str, Any]:
        """The rule with its id and its counters."""
        values = asdict(self)
        del values["random"]
        return values

    def applies(self, entry: JournalEntry) -> bool:
        """Whether this request gets the fault; updates the counters."""
        if not self._is_for(entry):
            return False
        self.matched += 1
        if self.nth is not None and self.matched != self.nth:
            return False
        if self.count is not None and self.struck >= self.count:
            return False
        if self.probability is not None and self.random.random() >= self.probability:
            return False
        self.struck += 1
        return True

    def _is_for(self, entry: JournalEntry) -> bool:
        exact = (self.op, entry.op), (self.bucket, entry.bucket), (self.offset, entry.offset)
        if any(wanted is not None and wanted != given for wanted, given in (*exact, (self.session, entry.session))):
            return False
        return self.path is None or fnmatchcase(entry.path, self.path)


_INTERNAL_FIELDS = frozenset({"id", "matched", "struck", "random"})


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return "None" in kind
    if "float" in kind:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if "int" in kind:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


class InjectedFaults:
    """The faults that one request gets."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    @property
    def names(self) -> tuple[str, ...]:
        """The faults, in the order of the rules."""
        return tuple(rule.fault.value for rule in self._rules)

    def get(self, fault: Fault, when: str | None = None) -> Rule | None:
        """The first rule with this fault."""
        return next((rule for rule in self._rules if rule.fault is fault and (when is None or rule.when == when)), None)


class FaultPlan:
    """The rules in force, and the requests that wait for a release."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._released = threading.Condition()
        self._held: set[int] = set()
        self._stopping = False

    def add(self, rule: Rule) -> Rule:
        """Adds a rule behind the others."""
        with self._lock:
            rule.id = next(self._ids)
            self._rules.append(rule)
        return rule

    def rules(self) -> list[Rule]:
        """The rules in force."""
        with self._lock:
            return list(self._rules)

    def remove(self, rule_id: int | None = None) -> None:
        """Removes one rule, or all."""
        with self._lock:
            self._rules = [rule for rule in self._rules if rule_id is not None and rule.id != rule_id]

    def faults_for(self, entry: JournalEntry) -> InjectedFaults:
        """The faults that this request gets, except `CUT_BODY`; updates the counters."""
        with self._lock:
            return InjectedFaults(
                [rule for rule in self._rules if rule.fault is not Fault.CUT_BODY and rule.applies(entry)]
            )

    def cuts_body(self, entry: JournalEntry) -> bool:
        """Whether `CUT_BODY` closes the connection at this byte of the body; updates the counters."""
        if not self._rules:
            return False
        with self._lock:
            return any(
                rule.fault is Fault.CUT_BODY and entry.body_bytes >= rule.body_bytes and rule.applies(entry)
                for rule in self._rules
            )

    def hold(self, number: int) -> None:
        """Waits until the request is released."""
        with self._released:
            self._held.add(number)
            self._released.wait_for(lambda: number not in self._held or self._stopping)
            self._held.discard(number)

    def release(self, number: int | None = None) -> int:
        """Releases one held request, or all, and returns how many."""
        with self._released:
            released = {each for each in self._held if number in {None, each}}
            self._held -= released
            self._released.notify_all()
            return len(released)

    def stop(self) -> None:
        """Releases all held requests, now and later."""
        with self._released:
            self._stopping = True
            self._released.notify_all()
