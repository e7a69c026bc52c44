"""Each fault has its effect on the response and on the store."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.emulator.client import SLICE
from worker.emulator.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = os.urandom(2 * SLICE)


@pytest.fixture
def session(cos: Any) -> str:
    return str(cos.begin("a.bin", len(DATA)))


def parts(cos: Any) -> list[int]:
    """Offsets of the slices that the store has."""
    return [each["offset"] for each in cos.list("a.bin").json()["data"]["listparts"]]


def send(cos: Any, session: str, offset: int = 0) -> httpx.Response:
    response = cos.send("a.bin", session, offset, DATA[offset : offset + SLICE])
    assert isinstance(response, httpx.Response)
    return response


def test_any_code_with_any_status(cos: Any, session: str) -> None:
    cos.control.add_rule("error", op="data", status=503, code=-71, message="slower", count=1)
    response = send(cos, session)
    assert (response.status_code, response.json()["code"], response.json()["message"]) == (503, -71, "slower")
    assert parts(cos) == []
    assert send(cos, session).json()["code"] == 0


def test_success_by_status_may_be_an_error_by_code(cos: Any, session: str) -> None:
    cos.control.add_rule("error", op="data", status=200, code=-4013)
    response = send(cos, session)
    assert (response.status_code, response.json()["code"]) == (200, -4013)


def test_an_error_may_follow_the_effect(cos: Any, session: str) -> None:
    cos.control.add_rule("error", when="after", op="data", status=500, code=-195)
    assert send(cos, session).status_code == 500
    assert parts(cos) == [0]


def test_a_response_may_be_no_json(cos: Any, session: str) -> None:
    page = {"status": 502, "body": "<html>bad gateway</html>", "content_type": "text/html"}
    cos.control.add_rule("raw", op="data", **page)
    response = send(cos, session)
    assert (response.status_code, response.text, response.headers["content-type"]) == (502, page["body"], "text/html")


@pytest.mark.parametrize(("when", "stored"), [("before", []), ("after", [0])])
def test_a_connection_may_be_cut_before_or_after_the_effect(
    cos: Any, session: str, when: str, stored: list[int]
) -> None:
    cos.control.add_rule("cut", when=when, op="data", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        send(cos, session)
    assert parts(cos) == stored
    assert send(cos, session).json()["code"] == 0


def test_a_connection_may_be_cut_within_a_slice(cos: Any, session: str) -> None:
    cos.control.add_rule("cut_body", op="data", offset=0, body_bytes=100_000, count=1)
    with pytest.raises(httpx.TransportError):
        send(cos, session)
    (entry,) = cos.control.requests(op="data")
    assert (entry["state"], entry["code"], entry["faults"]) == ("cut", None, ["cut_body"])
    assert 100_000 <= entry["body_bytes"] < SLICE
    assert parts(cos) == []


def test_a_response_may_be_truncated(cos: Any, session: str) -> None:
    cos.control.add_rule("truncate", op="data", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        send(cos, session)
    assert parts(cos) == [0]


def test_responses_may_drip_and_delay(cos: Any, session: str) -> None:
    cos.control.add_rule("drip", op="data", delay_s=0.01)
    cos.control.add_rule("delay", op="data", delay_s=0.1, when="after")
    assert send(cos, session).json()["data"]["offset"] == 0
    (entry,) = cos.control.requests(op="data", state="answered", count=1, timeout_s=120)
    assert entry["ended_s"] - entry["began_s"] >= 0.1 + 16 * 0.01


def test_a_session_may_be_lost(cos: Any, session: str) -> None:
    send(cos, session)
    cos.control.add_rule("lose_session", op="data", offset=SLICE, count=1)
    assert send(cos, session, SLICE).json()["code"] == -4013
    assert cos.list("a.bin").status_code == 404
    assert cos.begin("a.bin", len(DATA)) != session


def test_one_upload_may_get_another_slice_size_and_an_order(cos: Any) -> None:
    cos.control.add_rule("slice_size", op="init", slice_size=2 * SLICE, path="b*")
    cos.control.add_rule("serial", op="init", path="b*")
    begun = cos.init("b.bin", 3 * SLICE).json()["data"]
    assert (begun["slice_size"], begun["serial_upload"]) == (2 * SLICE, 1)
    assert cos.send("b.bin", begun["session"], 2 * SLICE, DATA[:SLICE]).json()["code"] == -4024
    assert cos.init("c.bin", 3 * SLICE).json()["data"]["slice_size"] == SLICE


def test_a_response_may_name_another_session_or_offset(cos: Any, session: str) -> None:
    rule = cos.control.add_rule("wrong_session", op="data")
    assert send(cos, session).json()["data"]["session"] != session
    cos.control.remove_rule(rule)
    cos.control.add_rule("wrong_offset", op="data")
    data = send(cos, session).json()["data"]
    assert (data["session"], data["offset"]) == (session, 1)


@pytest.mark.parametrize("op", ["init", "data", "finish", "upload", "delete"])
def test_a_success_may_have_no_effect(cos: Any, session: str, op: str) -> None:
    cos.control.add_rule("swallow", op=op)
    requests: dict[str, Callable[[], Any]] = {
        "init": lambda: cos.init("b.bin", SLICE),
        "data": lambda: send(cos, session),
        "finish": lambda: cos.finish("a.bin", session, len(DATA)),
        "upload": lambda: cos.upload("b.bin", b"data"),
        "delete": lambda: cos.delete("a.bin"),
    }
    response = requests[op]()
    assert (response.status_code, response.json()["code"]) == (200, 0)
    assert parts(cos) == []
    assert cos.stat("b.bin").status_code == 404
    (entry,) = cos.control.requests(faults="('swallow',)", state="answered", count=1, timeout_s=120)
    assert (entry["op"], entry["code"], entry["effect"]) == (op, 0, None)


@pytest.mark.parametrize("size", [4, 5 * 1024 * 1024])
def test_a_byte_may_be_corrupted(cos: Any, size: int) -> None:
    cos.control.add_rule("corrupt", op="upload")
    cos.upload("b.bin", bytes(size))
    assert cos.get("b.bin").content == b"\xff" + bytes(size - 1)


@pytest.mark.parametrize(("when", "stored"), [("before", []), ("after", [0])])
def test_a_request_may_be_held_on_either_side_of_its_effect(
    cos: Any, session: str, when: str, stored: list[int]
) -> None:
    cos.control.add_rule("hold", when=when, op="data", count=1)
    responses: list[httpx.Response] = []
    sender = threading.Thread(target=lambda: responses.append(send(cos, session)))
    sender.start()
    (held,) = cos.control.requests(state="held", count=1, timeout_s=120)
    assert (held["op"], held["offset"]) == ("data", 0)
    assert parts(cos) == stored
    assert not responses
    assert cos.control.release(held["number"]) == 1
    sender.join(120)
    assert responses[0].json()["code"] == 0
    assert cos.control.release() == 0


def test_a_stop_releases_held_requests(start_cos: Callable[..., Any]) -> None:
    cos = start_cos()
    cos.control.add_rule("hold", op="stat")
    outcome: list[object] = []

    def request() -> None:
        try:
            outcome.append(cos.stat("a.bin").status_code)
        except httpx.TransportError as error:
            outcome.append(error)

    requester = threading.Thread(target=request)
    requester.start()
    cos.control.requests(state="held", count=1, timeout_s=120)
    start_cos()
    requester.join(120)
    assert len(outcome) == 1


def test_a_download_may_fail_too(cos: Any) -> None:
    cos.upload("b.bin", b"data")
    cos.control.add_rule("error", op="download", status=500, code=-195, nth=2)
    assert [cos.get("b.bin").status_code for _ in range(3)] == [200, 500, 200]


def test_rules_count_and_are_cleared(cos: Any) -> None:
    cos.control.add_rule("error", op="stat", nth=2)
    assert [cos.stat("a.bin").status_code for _ in range(3)] == [404, 503, 404]
    (rule,) = cos.control.rules()
    assert (rule["matched"], rule["struck"]) == (3, 1)
    cos.control.clear_rules()
    assert cos.control.rules() == []


def test_a_rule_with_an_unknown_field_is_refused(cos: Any) -> None:
    with pytest.raises(ControlError, match="no field 'pth'"):
        cos.control.add_rule("cut", pth="*")
