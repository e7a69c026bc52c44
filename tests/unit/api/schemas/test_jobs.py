"""What comes in is what was asked for, and nothing else."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.problems import TooLarge
from api.schemas import jobs
from api.schemas.jobs import BatchItem, JobRequest, duration_s, parse, parse_batch
from api.views import cursor, job_after, number_after
from worker.errors import Refused

WISH = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": "a"}


def digest(**more: Any) -> bytes | None:
    return parse(JobRequest, json.dumps(WISH | more).encode()).job_spec("k").digest


@pytest.mark.parametrize(
    "same",
    [
        {"priority": 5},
        {"overwrite": False, "labels": {}},
        {"attributes": None, "callback_url": None, "slice_size": None},
        {"key": "a", "verify": "auto"},
    ],
)
def test_a_default_is_the_same_request_given_and_left_out(same: dict[str, Any]) -> None:
    assert digest(**same) == digest()


@pytest.mark.parametrize(
    "other", [{"priority": 4}, {"key": "b"}, {"labels": {"a": "1"}}, {"retry_for": "24h"}, {"overwrite": True}]
)
def test_another_wish_is_another_request(other: dict[str, Any]) -> None:
    assert digest(**other) != digest()


def test_the_order_of_members_and_the_unit_of_a_time_do_not_matter() -> None:
    assert digest(labels={"a": "1", "b": "2"}) == digest(labels={"b": "2", "a": "1"})
    assert digest(retry_for="24h") == digest(retry_for="1d")


def test_no_digest_is_taken_without_an_idempotency_key() -> None:
    assert parse(JobRequest, json.dumps(WISH).encode()).job_spec(None).digest is None


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
def test_an_item_of_a_batch_is_judged_the_same_whatever_is_wrong_beside_it(more: dict[str, Any]) -> None:
    [alone] = parse_batch(json.dumps({"jobs": [WISH | more]}).encode())
    beside, wrong = parse_batch(json.dumps({"jobs": [WISH | more, "no object"]}).encode())
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
        {"source": WISH["source"] | {f"colour-{n}": "blue" for n in range(500)}},  # type: ignore[operator]
    ],
)
def test_a_large_body_is_judged_as_a_small_one(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(WISH | more).encode()
    small = judged(body)
    monkeypatch.setattr(jobs, "_MOST_COMMAS", -1)
    assert judged(body) == small


def judged(body: bytes) -> object:
    try:
        return parse(JobRequest, body)
    except Refused as refused:
        return refused.code, refused.message, refused.extra


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"key": "\\ud800"}', b"[" * 1000])
def test_a_large_body_that_is_no_json_is_refused_as_a_small_one(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    small = judged(body)
    monkeypatch.setattr(jobs, "_MOST_COMMAS", -1)
    assert judged(body) == small


@pytest.mark.parametrize("where", ["", "source", "labels"])
def test_the_refusal_of_very_many_fields_is_small_and_counts_them(where: str) -> None:
    fields = {f"{n}": 0 for n in range(50_000)}
    source: dict[str, Any] = WISH["source"]  # type: ignore[assignment]
    wrong = {"": WISH | fields, "source": WISH | {"source": source | fields}, "labels": WISH | {"labels": fields}}[
        where
    ]
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
def test_a_body_with_more_values_than_a_batch_can_have_is_not_even_parsed(body: bytes) -> None:
    with pytest.raises(TooLarge):
        parse_batch(body)


def test_the_largest_batch_that_can_be_is_read() -> None:
    every = WISH | {
        "overwrite": True,
        "slice_size": 1048576,
        "verify": "file",
        "priority": 1,
        "attributes": ",",
        "retry_for": "1d",
    }
    full = every | {"labels": {f"{n},[{{": ",[{" for n in range(32)}, "callback_url": None, "idempotency_key": "k"}
    assert set(full) == set(BatchItem.model_fields)
    assert all(isinstance(item, BatchItem) for item in parse_batch(json.dumps({"jobs": [full] * 1000}).encode()))


@pytest.mark.parametrize("text", [",[{" * 300, '",{\\' * 200])
def test_what_is_in_a_text_is_no_value(text: str) -> None:
    items = [WISH | {"key": f"{n}", "attributes": text} for n in range(200)]
    assert all(isinstance(item, BatchItem) for item in parse_batch(json.dumps({"jobs": items}).encode()))


@pytest.mark.parametrize("text", [b'"', b'"\\', b'"' + b'\\"' * 4_000_000, b'"' + b'\\"' * 4_000_000 + b"\\"])
def test_a_text_without_an_end_is_looked_at_once(text: bytes) -> None:
    """Else this one would take days."""
    with pytest.raises(Refused):
        parse_batch(b"{" * 60_001 + text)
    with pytest.raises(Refused):
        parse_batch(text + b"{" * 60_001)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert duration_s(text, 604_800) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1w", "1.5h", "-1s", "8d", "12345678s", "1s\n", "\u0661s", 1, None])
def test_anything_else_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="such as '30s'"):
        duration_s(text, 604_800)


@given(st.uuids(), st.integers(0, 2**63 - 1))
def test_a_cursor_leads_back_to_its_place(job: UUID, number: int) -> None:
    assert job_after(cursor(job)) == job
    assert number_after(cursor(number)) == number


@pytest.mark.parametrize("text", ["", "x", "MTIz", "\u00e9", "=", "0" * 99, cursor(17)])
def test_no_other_text_is_a_job_to_go_on_from(text: str) -> None:
    with pytest.raises(Refused, match="cursor"):
        job_after(text)


@pytest.mark.parametrize("text", ["", "x", "\u00e9", "=", cursor(2**63), cursor(-2), cursor(UUID(int=0))])
def test_no_other_text_is_a_number_to_go_on_from(text: str) -> None:
    with pytest.raises(Refused, match="cursor"):
        number_after(text)


def test_a_page_without_a_cursor_is_the_first() -> None:
    assert job_after(None) is None
    assert number_after(None) == -1
