"""The parser of bodies: what it accepts and refuses, and that its cost is bounded whatever a client sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api import body as bodies
from api.body import parse, parse_batch
from api.problems import TooLarge
from api.schemas.jobs import BatchItem, JobRequest
from worker.errors import Refused

REQUEST = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": "a"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"labels": {"a": "\u00e4"}, "retry_for": "24h", "priority": 0, "idempotency_key": "k", "slice_size": 1},
        {"source": {"kind": "url", "url": "http://x"}},
        {"priority": 5.0},
        {"colour": "blue", "key": ""},
    ],
)
def test_an_item_of_a_batch_is_parsed_alike_whatever_is_wrong_beside_it(more: dict[str, Any]) -> None:
    [alone] = parse_batch(json.dumps({"jobs": [REQUEST | more]}).encode())
    beside, wrong = parse_batch(json.dumps({"jobs": [REQUEST | more, "no object"]}).encode())
    assert isinstance(wrong, Refused)
    if isinstance(alone, Refused):
        assert isinstance(beside, Refused)
        assert (alone.code, alone.message, alone.extra) == (beside.code, beside.message, beside.extra)
    else:
        assert beside == alone


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"labels": {"a": "\u00e4"}, "retry_for": "24h", "priority": 0, "slice_size": 1},
        {"source": {"kind": "url", "url": "http://x"}},
        {"priority": 5.0, "labels": {"a": 1}},
        {f"colour-{n}": "blue" for n in range(21)},
        {f"colour-{n}": "blue" for n in range(500)} | {"key": ""},
        {"source": REQUEST["source"] | {f"colour-{n}": "blue" for n in range(500)}},  # type: ignore[operator]
    ],
)
def test_a_large_body_is_parsed_like_a_small_one(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(REQUEST | more).encode()
    small = parsed(body)
    monkeypatch.setattr(bodies, "_MAX_COMMAS", -1)
    assert parsed(body) == small


def parsed(body: bytes) -> object:
    try:
        return parse(JobRequest, body)
    except Refused as refused:
        return refused.code, refused.message, refused.extra


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"key": "\\ud800"}', b"[" * 1000])
def test_a_large_body_that_is_no_json_is_refused_like_a_small_one(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    small = parsed(body)
    monkeypatch.setattr(bodies, "_MAX_COMMAS", -1)
    assert parsed(body) == small


@pytest.mark.parametrize("where", ["", "source", "labels"])
def test_the_refusal_of_very_many_fields_is_small_and_counts_them(where: str) -> None:
    fields = {f"{n}": 0 for n in range(50_000)}
    source: dict[str, Any] = REQUEST["source"]  # type: ignore[assignment]
    wrong = {
        "": REQUEST | fields,
        "source": REQUEST | {"source": source | fields},
        "labels": REQUEST | {"labels": fields},
    }[where]
    with pytest.raises(Refused) as refused:
        parse(JobRequest, json.dumps(wrong).encode())
    [item] = parse_batch(json.dumps({"jobs": [wrong]}).encode())
    assert isinstance(item, Refused)
    for each in (refused.value, item):
        errors = each.extra["errors"]
        assert isinstance(errors, list)
        omitted = each.extra.get("errors_omitted", 0)
        assert len(json.dumps(each.extra)) < 4000
        if where == "labels":
            assert "not 50000" in each.message
        else:
            assert (len(errors), omitted) == (20, 49_980)


@pytest.mark.parametrize("body", [b"[" + b"0," * 60_001, b"{}," * 60_000, b'{"jobs":[' + b'"\\",[",' * 60_000])
def test_a_body_with_more_values_than_a_batch_can_have_is_not_parsed(body: bytes) -> None:
    with pytest.raises(TooLarge):
        parse_batch(body)


def test_the_largest_possible_batch_is_accepted() -> None:
    every = REQUEST | {
        "overwrite": True,
        "slice_size": 1048576,
        "verify": "file",
        "priority": 1,
        "attributes": ",",
        "retry_for": "1d",
        "traceparent": "00",
    }
    full = every | {"labels": {f"{n},[{{": ",[{" for n in range(32)}, "callback_url": None, "idempotency_key": "k"}
    assert set(full) == set(BatchItem.model_fields)
    assert all(isinstance(item, BatchItem) for item in parse_batch(json.dumps({"jobs": [full] * 1000}).encode()))


@pytest.mark.parametrize("text", [",[{" * 300, '",{\\' * 200])
def test_separators_within_a_string_are_not_counted(text: str) -> None:
    items = [REQUEST | {"key": f"{n}", "attributes": text} for n in range(200)]
    assert all(isinstance(item, BatchItem) for item in parse_batch(json.dumps({"jobs": items}).encode()))


@pytest.mark.parametrize("text", [b'"', b'"\\', b'"' + b'\\"' * 4_000_000, b'"' + b'\\"' * 4_000_000 + b"\\"])
def test_a_string_without_an_end_is_read_once(text: bytes) -> None:
    """With a backtracking expression, this test would take days."""
    with pytest.raises(Refused):
        parse_batch(b"{" * 60_001 + text)
    with pytest.raises(Refused):
        parse_batch(text + b"{" * 60_001)
