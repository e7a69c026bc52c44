"""The query language for jobs: a filter is the query string of a URL.

    state=failed&store=main&label.order=17&error_code=source_gone&older_than=1h

The API, the command line and every other client use this parser, so that a query means the same everywhere. `matching`
has the conditions in SQL.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

from worker.errors import Refused
from worker.jobs.durations import duration_s, duration_text
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

LABEL = "label."
"""A parameter that begins so names a label: `label.order=17`."""
LABELS_MAX = 32
TEXT_MAX_CHARS = 1024
AGE_MAX_S = 3650 * 86_400
_FIELDS_MAX = 200
_SHOWN_MAX_CHARS = 100
_LABEL_PARTS = re.compile("([=:])")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


class Mistake(NamedTuple):
    """What is wrong with one parameter of a query."""

    parameter: str
    message: str
    unknown: bool = False


class WrongFilter(Refused):
    """A query that is no filter; the message names the first parameter that is wrong.

    Attributes:
        mistakes: every parameter that is wrong.
    """

    advice = "Correct the parameter that is named; docs/api.md lists all of them."

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        first = mistakes[0]
        super().__init__(f"{first.parameter}: {first.message}", code="unknown_field" if first.unknown else "invalid")
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; what is None or empty does not matter.

    Attributes:
        labels: all of these, each with its value.
        created_from: inclusive; of `created_at`, as all times here.
        created_before: exclusive.
        newer_than_s: created within the last so many seconds, by the database's clock.
        older_than_s: created longer ago than so many seconds, likewise.
    """

    tenant: str | None = None
    states: Collection[JobState] = ()
    store: str | None = None
    key_prefix: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    error_code: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    newer_than_s: int | None = None
    older_than_s: int | None = None

    def query(self) -> str:
        """Return the filter as a canonical query string: equal filters have equal ones, and `parse` reads it."""
        return urlencode(self.pairs())

    def pairs(self) -> list[tuple[str, str]]:
        """Return the parameters of the query string, in its order."""
        single = {
            "created_before": None if self.created_before is None else _moment_text(self.created_before),
            "created_from": None if self.created_from is None else _moment_text(self.created_from),
            "error_code": self.error_code,
            "key_prefix": self.key_prefix,
            "older_than": None if self.older_than_s is None else duration_text(self.older_than_s),
            "since": None if self.newer_than_s is None else duration_text(self.newer_than_s),
            "store": self.store,
            "tenant": self.tenant,
        }
        pairs = [(name, value) for name, value in single.items() if value is not None]
        pairs += [(f"{LABEL}{name}", value) for name, value in self.labels.items()]
        pairs += [("state", str(state)) for state in set(self.states)]
        return sorted(pairs)


class _Reading:
    """A query while it is read: the values of the filter's fields, and what is wrong."""

    def __init__(self, known: Collection[str]) -> None:
        self.known = known
        self.values: dict[str, object] = {}
        self.states: list[JobState] = []
        self.labels: dict[str, str] = {}
        self.mistakes: list[Mistake] = []

    def take(self, name: str, value: str) -> None:
        """Read one parameter."""
        if "\x00" in name + value:
            self._wrong(name, "must have no NUL character")
        elif name.startswith(LABEL) and name != LABEL:
            self._label(name, name[len(LABEL) :], value)
        elif name == "label":
            parts = _LABEL_PARTS.split(value, maxsplit=1)
            if len(parts) == 1 or not parts[0]:
                self._wrong(name, "must be NAME=VALUE")
            else:
                self._label(name, parts[0], parts[2])
        elif name == "state":
            self._state(value)
        elif name in _SINGLE:
            self._single(name, value)
        else:
            self.mistakes.append(Mistake(_shown(name), f"is not known; {nearest(name, self.known)}", unknown=True))

    def _wrong(self, name: str, message: str) -> None:
        self.mistakes.append(Mistake(_shown(name), message))

    def _state(self, value: str) -> None:
        try:
            self.states.append(JobState(value))
        except ValueError:
            self._wrong("state", f"must be one of {', '.join(JobState)}")

    def _label(self, parameter: str, name: str, value: str) -> None:
        if len(value) > TEXT_MAX_CHARS:
            self._wrong(parameter, f"must have at most {TEXT_MAX_CHARS} characters")
        elif self.labels.setdefault(name, value) != value:
            self._wrong(parameter, "one name with two values matches nothing")
        elif len(self.labels) > LABELS_MAX:
            self._wrong(parameter, f"a filter has at most {LABELS_MAX} labels")

    def _single(self, name: str, value: str) -> None:
        field_name, read = _SINGLE[name]
        try:
            found = read(value)
        except ValueError as error:
            self._wrong(name, str(error))
            return
        if name == "since" and isinstance(found, datetime):
            field_name = "created_from"
        if self.values.setdefault(field_name, found) != found:
            self._wrong(name, "is given twice")


def parse(query: str | Iterable[tuple[str, str]]) -> Filter:
    """Return the filter that a query string says, or its parameters.

    Raises:
        WrongFilter: a parameter is not known, or wrong.
    """
    return parse_with_options(query, ())[0]


def parse_with_options(
    query: str | Iterable[tuple[str, str]], options: Collection[str]
) -> tuple[Filter, dict[str, str]]:
    """Return the filter, and the parameters of these names that are none of it, such as `limit`.

    Raises:
        WrongFilter: a parameter is not known, wrong, or an option that is given twice.
    """
    if isinstance(query, str):
        try:
            query = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
        except ValueError:
            raise WrongFilter([Mistake("query", f"has more than {_FIELDS_MAX} parameters")]) from None
    reading = _Reading([*NAMES, *options])
    chosen: dict[str, str] = {}
    for name, value in query:
        if name in options:
            if chosen.setdefault(name, value) != value:
                reading.mistakes.append(Mistake(name, "is given twice"))
        else:
            reading.take(name, value)
    if reading.mistakes:
        raise WrongFilter(reading.mistakes)
    states = tuple(state for state in JobState if state in reading.states)
    return Filter(states=states, labels=reading.labels, **reading.values), chosen  # type: ignore[arg-type]  # by _SINGLE


def nearest(name: str, known: Collection[str]) -> str:
    """Return which name was probably meant, or all known ones."""
    first, dot, label = name.partition(".")
    found = difflib.get_close_matches(f"{first}{dot}" if dot else name, known, n=1, cutoff=0.6)
    if found:
        return f"the nearest is {_shown(LABEL + (label or 'NAME') if found[0] == LABEL else found[0])}"
    return f"known are {', '.join(f'{each}NAME' if each == LABEL else each for each in sorted(known))}"


def text(value: str) -> str:
    """Return a text that a column may hold.

    Raises:
        ValueError: it is empty or too long.
    """
    if not 1 <= len(value) <= TEXT_MAX_CHARS:
        raise ValueError(f"must have 1 to {TEXT_MAX_CHARS} characters")
    return value


def moment(value: str) -> datetime:
    """Return the time of RFC 3339.

    Raises:
        ValueError: it has another form, lacks seconds or the offset, or is no day of the calendar.
    """
    message = "must be a date and time with seconds and an offset, such as 2026-01-31T12:00:00Z"
    if not _MOMENT.fullmatch(value):
        raise ValueError(message)
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError(message) from None


def _since(value: str) -> datetime | int:
    try:
        return moment(value) if "-" in value else duration_s(value, AGE_MAX_S)
    except ValueError:
        raise ValueError("must be a duration such as 24h, or a time such as 2026-01-31T12:00:00Z") from None


def _age_s(value: str) -> int:
    return duration_s(value, AGE_MAX_S)


_SINGLE: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "store": ("store", text),
    "key_prefix": ("key_prefix", text),
    "tenant": ("tenant", text),
    "error_code": ("error_code", text),
    "created_from": ("created_from", moment),
    "created_before": ("created_before", moment),
    "since": ("newer_than_s", _since),
    "older_than": ("older_than_s", _age_s),
}
NAMES = ("state", "label", LABEL, *_SINGLE)
"""The parameters of a filter; the one that ends in a dot begins the names of labels."""


def _moment_text(value: datetime) -> str:
    try:
        value = value.astimezone(UTC)
    except OverflowError:  # the first or last day of the calendar, elsewhere
        return value.isoformat()
    return value.isoformat().replace("+00:00", "Z")


def _shown(name: str) -> str:
    """Return a name in one line of bounded length: a client chooses it."""
    short = name if len(name) <= _SHOWN_MAX_CHARS else name[: _SHOWN_MAX_CHARS - 1] + "…"
    return short if short.isprintable() else repr(short)[1:-1]
