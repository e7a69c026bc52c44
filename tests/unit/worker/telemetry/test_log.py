"""The form of a log line; neither it nor Python's own output has a secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.leaks import leaked
from worker.telemetry import log
from worker.telemetry.redact import HIDDEN, hide

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_has_the_event_and_its_keys_and_those_bound() -> None:
    out = io.StringIO()
    log.set_up("json", stream=out)
    with log.bound_contextvars(job_id="j1"):
        log.get_logger("worker.tasks").info("slice.checkpointed", number=7)
    line = json.loads(out.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "event": "slice.checkpointed",
        "logger": "worker.tasks",
        "job_id": "j1",
        "number": 7,
    }


def test_a_text_line_stays_one_line_whatever_a_key_holds() -> None:
    out = io.StringIO()
    log.set_up("text", stream=out)
    log.get_logger("x").warning("store.refused", answer="two\nlines", key='a "b"', n=1)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith('warning store.refused answer="two\\nlines" key="a \\"b\\"" n=1\n')


def test_lines_and_tracebacks_of_others_are_redacted_too() -> None:
    out = io.StringIO()
    log.set_up("text", stream=out)
    try:
        int("redis://:fake-secret-9@h/0")
    except ValueError:
        logging.getLogger("kombu").exception("lost %s", "redis://:fake-secret-9@h/0")
    assert "ValueError: invalid literal for int() with base 10: 'redis://:***@h/0'" in out.getvalue()
    assert "fake-secret-9" not in out.getvalue()


def test_less_than_the_level_is_not_written() -> None:
    out = io.StringIO()
    log.set_up("json", "warning", stream=out)
    log.get_logger("x").info("not.seen")
    log.get_logger("x").error("seen")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["seen"]


def test_what_is_bound_ends_with_its_block() -> None:
    out = io.StringIO()
    log.set_up("json", stream=out)
    with log.bound_contextvars(job_id="j1"):
        pass
    log.get_logger("x").info("after")
    assert "job_id" not in json.loads(out.getvalue())


SECRET = "fake-only-R8kTq2Wv7Zs4"


def test_what_is_no_text_is_redacted_as_deep_as_it_lies() -> None:
    hide(SECRET)
    out = io.StringIO()
    for form in ("json", "text"):
        log.set_up(form, stream=out)  # type: ignore[arg-type]
        log.get_logger("x").error("failed", cause=ValueError(SECRET), all={"of": [ValueError(SECRET), SECRET.encode()]})
    assert out.getvalue().count(HIDDEN) == 6
    assert leaked(SECRET, out.getvalue()) == []


def test_a_line_that_cannot_be_formatted_shows_nothing_of_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    hide(SECRET)
    log.set_up("text", stream=io.StringIO())
    logging.getLogger("kombu").warning("lost %d", SECRET)
    printed = capsys.readouterr().err
    assert printed.startswith("a line of kombu cannot be logged: Traceback")
    assert leaked(SECRET, printed) == []


_FAILS = """
import sys, threading
from worker.telemetry.log import show_failures_without_secrets
from worker.telemetry.redact import hide

class Broken:
    def __del__(self):
        raise ValueError(f"deleted {SECRET}")

SECRET = sys.stdin.read()
hide(SECRET)
show_failures_without_secrets()
thread = threading.Thread(target=lambda: int(f"in a thread {SECRET}"))
thread.start()
thread.join()
Broken()
try:
    int(SECRET)
except ValueError as error:
    raise RuntimeError(f"at last {SECRET}") from error
"""


def test_what_python_itself_prints_of_a_failure_shows_no_secret() -> None:
    ended = subprocess.run([sys.executable, "-c", _FAILS], input=SECRET, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert [text in ended.stderr for text in ("in a thread ***", "deleted ***", "at last ***")] == [True] * 3
    assert leaked(SECRET, ended.stderr) == []
