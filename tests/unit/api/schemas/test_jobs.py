"""The digest of a request: by it, a repetition under the same idempotency key is known from another request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.body import parse
from api.schemas.jobs import JobRequest

REQUEST = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": "a"}


def digest(**more: Any) -> bytes | None:
    return parse(JobRequest, json.dumps(REQUEST | more).encode()).job_spec("k").digest


@pytest.mark.parametrize(
    "same",
    [
        {"priority": 5},
        {"overwrite": False, "labels": {}},
        {"attributes": None, "callback_url": None, "slice_size": None},
        {"key": "a", "verify": "auto"},
    ],
)
def test_a_field_with_its_default_counts_as_left_out(same: dict[str, Any]) -> None:
    assert digest(**same) == digest()


@pytest.mark.parametrize(
    "other", [{"priority": 4}, {"key": "b"}, {"labels": {"a": "1"}}, {"retry_for": "24h"}, {"overwrite": True}]
)
def test_another_value_is_another_request(other: dict[str, Any]) -> None:
    assert digest(**other) != digest()


def test_the_order_of_members_and_the_unit_of_a_time_do_not_matter() -> None:
    assert digest(labels={"a": "1", "b": "2"}) == digest(labels={"b": "2", "a": "1"})
    assert digest(retry_for="24h") == digest(retry_for="1d")


def test_the_trace_of_a_request_does_not_matter() -> None:
    assert digest(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") == digest()
    assert digest(traceparent="malformed") == digest()


def test_no_digest_is_taken_without_an_idempotency_key() -> None:
    assert parse(JobRequest, json.dumps(REQUEST).encode()).job_spec(None).digest is None
