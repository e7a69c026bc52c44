"""The seam of telemetry: its subscribers are called, what breaks in one stays there, the manual has all events."""

from __future__ import annotations

import ast
import io
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.telemetry import log
from worker.telemetry.emit import emit, is_subscribed, subscribe
from worker.telemetry.events import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOME = Path(__file__).parents[4]
MANUAL = HOME / "docs" / "events.md"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.set_up("json", "info", stream=io.StringIO())
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_subscriber_gets_its_events_until_it_ends() -> None:
    seen: list[tuple[str, Mapping[str, object]]] = []
    end = subscribe(lambda name, fields: seen.append((name, dict(fields))), ["slice.sent", "worker.dead"])
    emit("slice.sent", store="main", size_bytes=1, took_s=0.5)
    emit("worker.dead", worker="w", name="host:1")
    emit("task.failed", code="internal")
    end()
    end()  # once more is harmless
    emit("slice.sent", store="main", size_bytes=2, took_s=0.5)
    assert seen == [
        ("slice.sent", {"store": "main", "size_bytes": 1, "took_s": 0.5}),
        ("worker.dead", {"worker": "w", "name": "host:1"}),
    ]
    assert not is_subscribed("slice.sent")


def test_an_unknown_event_cannot_be_subscribed_to() -> None:
    with pytest.raises(KeyError, match=r"no event .slice\.snet."):
        subscribe(print, ["slice.sent", "slice.snet"])
    assert not is_subscribed("slice.sent")


def test_a_subscriber_that_breaks_is_logged_and_stops_neither_the_component_nor_the_others() -> None:
    out = io.StringIO()
    log.set_up("json", "info", stream=out)
    seen: list[str] = []

    def broken(name: str, _: Mapping[str, object]) -> None:
        raise ValueError(name)

    ends = [subscribe(broken, ["slice.sent"]), subscribe(lambda name, _: seen.append(name), ["slice.sent"])]
    emit("slice.sent", store="main", size_bytes=1, took_s=0.5)
    for end in ends:
        end()
    [line] = map(json.loads, out.getvalue().splitlines())
    assert (line["event"], line["broken"], seen) == ("telemetry.subscriber_broken", "slice.sent", ["slice.sent"])
    assert "ValueError: slice.sent" in line["traceback"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_log_has_the_events_of_its_level_and_is_not_called_for_others(level: str) -> None:
    out = io.StringIO()
    log.set_up("json", level, stream=out)
    wanted = {name for name, event in EVENTS.items() if event.level >= logging.getLevelName(level.upper())}
    assert {name for name in EVENTS if is_subscribed(name)} == wanted
    with log.bound_contextvars(job_id="j1"):
        for name in EVENTS:
            emit(name, number=7)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {line["event"] for line in lines} == wanted
    assert all((line["job_id"], line["number"]) == ("j1", 7) for line in lines)
    assert all(line["level"] == logging.getLevelName(EVENTS[line["event"]].level).lower() for line in lines)


def emitted() -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the name and the fields of every call of `emit` in the product."""
    for file in [*(HOME / "worker").rglob("*.py"), *(HOME / "api").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit":
                names = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                for name in names:
                    assert isinstance(name, str)
                    yield name, frozenset(keyword.arg or "**" for keyword in node.keywords)


def test_what_is_emitted_is_in_the_table_with_its_fields() -> None:
    found = list(emitted())
    assert {name for name, _ in found} == set(EVENTS)
    for name, fields in found:
        if "**" not in fields:
            assert fields == set(EVENTS[name].fields), name


def test_the_manual_has_the_table() -> None:
    def rows() -> Iterator[str]:
        for name, event in EVENTS.items():
            fields = "; ".join(f"`{field}`: {meaning}" for field, meaning in event.fields.items())
            yield f"| `{name}` | {logging.getLevelName(event.level).lower()} | {event.meaning} | {fields} |"

    assert "\n".join(rows()) in MANUAL.read_text()
