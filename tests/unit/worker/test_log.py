"""What a log line looks like, and that no secret is in it."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from worker import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql+psycopg://sliceway:fake-secret-1@db/sliceway", "fake-secret-1"),
        ("cannot reach redis://:fake-secret-2@cache:6379/0", "fake-secret-2"),
        ("Authorization: Bearer fake-secret-3", "fake-secret-3"),
        ("authorization=fake-secret-3", "fake-secret-3"),
        ("{'Authorization': b'ZmFrZS1zZWNyZXQ='}", "ZmFrZS1zZWNyZXQ"),
        ("GET http://cos/files/v2/1/b/k?sign=ZmFrZQ%3D%3D&op=list", "ZmFrZQ"),
        ("https://s3/b/k?X-Amz-Signature=feedc0de&X-Amz-Credential=fake-id", "feedc0de"),
        ("https://s3/b/k?X-Amz-Signature=feedc0de&X-Amz-Credential=fake-id", "fake-id"),
        ("https://cos/k?q-signature=feedc0de&q-ak=fake-id", "fake-id"),
        ('{"secret_key": "fake-secret-4"}', "fake-secret-4"),
        ("the header was 'Bearer fake-secret-5'", "fake-secret-5"),
        ("key slw_ZmFrZS1zZWNyZXQtZmFrZS1zZWNyZXQ was refused", "ZmFrZS1zZWNyZXQtZmFrZS1zZWNyZXQ"),
    ],
)
def test_no_secret_passes(text: str, secret: str) -> None:
    shown = log.redact(text)
    assert secret not in shown
    assert log.HIDDEN in shown
    assert log.redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["design=blue", "http://host:8080/a/b", "slice.checkpointed number=7", "idempotency_key is 'a-1'", "mail me@host"],
)
def test_ordinary_words_stay(text: str) -> None:
    assert log.redact(text) == text


def test_words_given_to_hide_never_pass_wherever_they_stand() -> None:
    log.hide("fake-literal-secret", "short")
    assert log.redact("oops fake-literal-secret!") == f"oops {log.HIDDEN}!"
    assert log.redact("short") == "short"


def test_json_is_redacted_in_depth_and_by_name() -> None:
    given = {"a": [{"url": "http://c/k?sign=fake-1"}], "password": "x", "token": 7, "n": None}
    assert log.redact_json(given) == {"a": [{"url": "http://c/k?sign=***"}], "password": "***", "token": 7, "n": None}


def test_a_json_line_has_the_event_and_its_keys_and_those_bound() -> None:
    out = io.StringIO()
    log.set_up("json", stream=out)
    with log.bound(job_id="j1"):
        log.get_log("worker.tasks").info("slice.checkpointed", number=7)
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
    log.get_log("x").warning("store.refused", answer="two\nlines", key='a "b"', n=1)
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
    log.get_log("x").info("not.seen")
    log.get_log("x").error("seen")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["seen"]


def test_what_is_bound_ends_with_its_block() -> None:
    out = io.StringIO()
    log.set_up("json", stream=out)
    with log.bound(job_id="j1"):
        pass
    log.get_log("x").info("after")
    assert "job_id" not in json.loads(out.getvalue())
