"""Which answer is the API's, which is another server's, and which failures are retried."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.client.answers import ACCEPTED, JOB, PAGE, NotTheApi, RefusedByApi, fits, read
from worker.client.environment import Unreachable
from worker.client.retry import is_temporary, retry_temporary
from worker.errors import SettingsError, SlicewayError

URL = "http://127.0.0.1:8080"
PROBLEM = {"detail": "no", "code": "key_busy", "advice": "Wait.", "job_id": "17"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*JOB, "items", "next_cursor"]), inner),
)


def refusal(status: int, document: Any = PROBLEM, **headers: str) -> SlicewayError:
    """Return the error that `read` raises for an answer."""
    answer = httpx.Response(status, json=document, headers=headers)
    with pytest.raises(SlicewayError) as raised:
        read(answer, ACCEPTED, URL)
    return raised.value


@given(JSON)
def test_any_answer_of_another_server_raises_not_the_api(document: Any) -> None:
    for shape in (ACCEPTED, JOB, PAGE):
        if not fits(document, shape):
            with pytest.raises(NotTheApi, match=r"127\.0\.0\.1:8080 is not the API \(HTTP 200\)"):
                read(httpx.Response(200, json=document), shape, URL)
    assert isinstance(refusal(404, document), NotTheApi)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff", b"[" * 100_000, b'{"id": "1", "state"', b'{"id": 1, "state": ""}']
)
def test_a_body_that_is_no_json_raises_not_the_api(body: bytes) -> None:
    for status in (200, 204, 301, 404):
        with pytest.raises(NotTheApi):
            read(httpx.Response(status, content=body), ACCEPTED, URL)


def test_further_members_of_a_later_release_are_accepted() -> None:
    document = {"id": "1", "state": "queued", "more": {"a": 1}}
    assert read(httpx.Response(202, content=json.dumps(document)), ACCEPTED, URL) == document


def test_a_refusal_keeps_the_problem_document() -> None:
    refused = refusal(409, **{"Retry-After": "7"})
    assert isinstance(refused, RefusedByApi)
    assert (refused.code, refused.advice, refused.document["job_id"]) == ("key_busy", "Wait.", "17")
    assert (refused.status, refused.retry_after_s) == (409, 7)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
def test_rate_limits_and_server_errors_are_temporary(status: int) -> None:
    assert is_temporary(refusal(status))
    assert is_temporary(refusal(status, ["a gateway's page"]))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 501])
def test_client_errors_are_not_temporary(status: int) -> None:
    assert not is_temporary(refusal(status))


def test_an_unreachable_api_is_temporary_and_wrong_settings_are_not() -> None:
    assert is_temporary(Unreachable("away"))
    assert not is_temporary(SettingsError("wrong"))
    assert not is_temporary(NotTheApi(URL, 200, 0))


class Flaky:
    """Raises each of the failures once, then returns. Only the pauses move its clock."""

    def __init__(self, *failures: SlicewayError) -> None:
        self.failures = list(failures)
        self.pauses: list[float] = []
        self.failed: list[SlicewayError] = []

    def send(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    def run(self, timeout_s: float) -> str:
        return retry_temporary(
            self.send,
            timeout_s=timeout_s,
            on_failure=self.failed.append,
            pause=self.pauses.append,
            clock=lambda: sum(self.pauses),
        )


def test_pauses_grow_and_retry_after_lengthens_them() -> None:
    flaky = Flaky(
        *[Unreachable("away")] * 6, refusal(503, **{"Retry-After": "20"}), refusal(429, **{"Retry-After": "9999"})
    )
    assert flaky.run(300) == "done"
    assert flaky.pauses == [0.25, 0.5, 1, 2, 4, 5, 20, 60]
    assert len(flaky.failed) == 8


def test_the_timeout_raises_the_last_failure() -> None:
    flaky = Flaky(*[Unreachable(f"away {number}") for number in range(100)])
    with pytest.raises(Unreachable, match="away 4"):
        flaky.run(3)
    assert flaky.pauses == [0.25, 0.5, 1, 1.25]


def test_a_permanent_failure_is_raised_at_once() -> None:
    flaky = Flaky(Unreachable("away"), refusal(409))
    with pytest.raises(RefusedByApi):
        flaky.run(300)
    assert flaky.pauses == [0.25]
