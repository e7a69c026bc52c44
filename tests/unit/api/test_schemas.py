"""What comes in is what was asked for, and nothing else."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.schemas import JobRequest, duration_s, parse, parse_batch
from api.views import cursor, job_after, number_after
from worker.errors import Refused

WISH = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": "a"}


def digest(**more: Any) -> bytes | None:
    return parse(JobRequest, json.dumps(WISH | more).encode()).wish("k").digest


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
    assert parse(JobRequest, json.dumps(WISH).encode()).wish(None).digest is None


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
