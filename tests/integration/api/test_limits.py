"""A client without a key costs the API little: limits on connections, heads and URLs."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.api.job_requests import enqueue
from tests.support.deadline import DEADLINE_S
from tests.support.wire import HttpTransport
from worker.local.ports import free_port
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., Any]
    Open = Callable[[Any], HttpTransport]

MIB = 1024 * 1024
SHORT = {
    "SLICEWAY_API_HEAD_TIMEOUT_S": "0.4",
    "SLICEWAY_API_KEEP_ALIVE_S": "0.4",
    "SLICEWAY_API_BODY_TIMEOUT_S": "0.4",
    "SLICEWAY_API_SEND_TIMEOUT_S": "0.4",
    "SLICEWAY_API_LINGER_S": "0.4",
}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n"


@pytest.fixture
def limited(make_api: Start, database_url: str) -> Start:
    """Start an API with some limits changed."""
    return lambda **limits: make_api(database_url, **{f"SLICEWAY_API_{name}": value for name, value in limits.items()})


@pytest.fixture
def wires() -> Iterator[Open]:
    """Open connections; they are closed afterwards."""
    with ExitStack() as stack:
        yield lambda api: stack.enter_context(HttpTransport(port_of(api)))


def port_of(api: Any) -> int:
    port = httpx.URL(api.url).port
    assert port is not None
    return port


def authorization(client: httpx.Client) -> str:
    return f"Authorization: {client.headers['Authorization']}"


def is_refused(wire: HttpTransport, status: int, code: str) -> None:
    """Check that the problem document arrives, and that the connection ends after it without a reset."""
    reply = wire.reply()
    problem = reply.problem()
    assert (reply.status, problem["code"], reply.fields["connection"]) == (status, code, "close")
    assert problem["advice"]
    assert wire.end() == b""


def is_alive(api: Any) -> None:
    with HttpTransport(port_of(api)) as wire:
        assert wire.send(HEALTH).reply().status == 200


@pytest.mark.parametrize("pieces", [1, 2000])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 8 * MIB + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(100_000)) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x" * 8 * MIB,
    ],
    ids=["one field", "many fields", "a name"],
)
def test_a_giant_head_is_refused(api: Any, wires: Open, head: bytes, pieces: int) -> None:
    wire, size = wires(api), len(head) // pieces + 1
    for start in range(0, len(head), size):
        wire.send(head[start : start + size])
    is_refused(wire, 431, "head_too_large")
    is_alive(api)


def test_a_head_of_the_largest_size_is_taken_also_behind_others(api: Any, wires: Open) -> None:
    fixed = len(b"X: ") + len(b"\r\n") + len(b"/healthz")
    field = b"X: " + b"x" * (32_768 - fixed)
    wire = wires(api).send(HEALTH * 3 + b"GET /healthz HTTP/1.1\r\n" + field + b"\r\n\r\n")
    assert [wire.reply().status for _ in range(4)] == [200] * 4
    wire.send(b"GET /healthz HTTP/1.1\r\n" + field + b"x\r\n\r\n")
    is_refused(wire, 431, "head_too_large")


@pytest.mark.parametrize("pieces", [1, 2000])
def test_a_giant_url_is_refused(api: Any, wires: Open, pieces: int) -> None:
    wire, url = wires(api).send(b"GET /"), b"x" * 8 * MIB
    size = len(url) // pieces + 1
    for start in range(0, len(url), size):
        wire.send(url[start : start + size])
    wire.send(b" HTTP/1.1\r\n\r\n")
    is_refused(wire, 414, "url_too_long")
    is_alive(api)


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 100_000, b"hello\r\n\r\n", b"GET / HTTP/1.1\n\n"],
)
def test_garbage_is_a_problem_document(api: Any, wires: Open, garbage: bytes) -> None:
    is_refused(wires(api).send(garbage), 400, "bad_request")


def test_a_head_that_does_not_arrive_is_timed_out(limited: Start, wires: Open) -> None:
    api = limited(HEAD_TIMEOUT_S="0.4")
    is_refused(wires(api).send(b"GET /healthz HTTP/1.1\r\nX: "), 408, "request_timeout")
    wire = wires(api).send(HEALTH)
    assert wire.reply().status == 200
    is_refused(wire.send(b"GET /he"), 408, "request_timeout")
    assert wires(api).is_cut()  # without a byte of a request there is no response


def test_pieces_of_a_head_do_not_extend_its_deadline(limited: Start, wires: Open) -> None:
    api = limited(HEAD_TIMEOUT_S="0.4")
    wire = wires(api).send(b"GET /healthz HTTP/1.1\r\n")
    sent = 0

    def refused() -> bool:
        nonlocal sent
        try:
            wire.send(b"X-%d: x\r\n" % sent)
        except OSError:
            return True
        sent += 1
        return False

    assert wait_until(refused, timeout_s=DEADLINE_S, poll_s=0.05)


def test_a_connection_that_is_kept_ends_when_nothing_comes(limited: Start, wires: Open) -> None:
    wire = wires(limited(KEEP_ALIVE_S="0.4"))
    assert wire.send(HEALTH).reply().status == 200
    assert wire.end() == b""


def test_no_limit_cuts_a_long_poll(make_api: Start, database_url: str) -> None:
    api = make_api(database_url, **SHORT)
    client = api.client()
    job = enqueue(client)
    with HttpTransport(port_of(api)) as wire:
        wire.request("GET", f"/v1/jobs/{job}?wait=3s", authorization(client))
        reply = wire.reply()
        assert (reply.status, b'"queued"' in reply.body) == (200, True)


def test_a_new_connection_takes_the_place_of_the_longest_idle_one(limited: Start, wires: Open) -> None:
    api = limited(CONNECTIONS="16")
    idle = [wires(api).send(b"GET /healthz") for _ in range(16)]
    used = wires(api).send(HEALTH)
    assert used.reply().status == 200
    assert idle[0].is_cut()
    for wire in idle[1:]:
        assert wire.send(HEALTH.removeprefix(b"GET /healthz")).reply().status == 200
    assert used.send(HEALTH).reply().status == 200


def test_no_connection_with_a_request_under_way_is_evicted(limited: Start, wires: Open) -> None:
    api = limited(CONNECTIONS="16")
    client = api.client()
    job = enqueue(client)
    client.close()
    polls = [wires(api).request("GET", f"/v1/jobs/{job}?wait=60s", authorization(client)) for _ in range(16)]
    assert wait_until(lambda: len(api.waiters) == 16, timeout_s=DEADLINE_S)
    for _ in range(3):
        is_refused(wires(api).send(HEALTH), 503, "too_many_connections")
    api.move(job, "succeeded")
    assert [wire.reply().status for wire in polls] == [200] * 16
    is_alive(api)


def test_one_address_may_be_bounded(limited: Start, wires: Open) -> None:
    api = limited(CONNECTIONS_PER_ADDRESS="2")
    first, second, third = (wires(api) for _ in range(3))
    assert third.send(HEALTH).reply().status == 200
    assert first.is_cut()
    assert second.send(HEALTH).reply().status == 200


def test_connections_that_are_closed_at_once_leave_nothing(limited: Start) -> None:
    api = limited(CONNECTIONS="16")
    for _ in range(500):
        HttpTransport(port_of(api)).__exit__()
    is_alive(api)


def test_few_open_files_do_not_end_the_service(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    environ |= {
        "SLICEWAY_DATABASE_URL": database_url, "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0",
        "SLICEWAY_API_PORT": str(port), "SLICEWAY_API_CONNECTIONS": "10000",
    }  # fmt: skip
    log = tmp_path / "log"
    command = ["sh", "-c", f"ulimit -n 128; exec {sys.executable} -m api"]
    with log.open("wb") as stream, subprocess.Popen(command, env=environ, stderr=stream) as api, ExitStack() as idle:
        try:
            url = f"http://127.0.0.1:{port}/healthz"
            assert wait_until(lambda: answers(url), timeout_s=DEADLINE_S)
            for _ in range(600):
                idle.enter_context(HttpTransport(port))
            with HttpTransport(port) as wire:
                assert wire.send(HEALTH).reply().status == 200
        finally:
            api.terminate()
            api.wait(DEADLINE_S)
    assert len(log.read_text().splitlines()) < 30


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_pipelined_requests_are_parsed_one_by_one_and_answered_in_order(
    api: Any, acme: httpx.Client, wires: Open
) -> None:
    job = enqueue(acme)
    wire = wires(api).request("GET", f"/v1/jobs/{job}?wait=60s", authorization(acme))
    wire.send(HEALTH * 200 + b"GET /nowhere HTTP/1.1\r\n\r\n" + HEALTH * 200)
    assert wait_until(lambda: len(api.waiters) == 1, timeout_s=DEADLINE_S)
    assert all(len(connection.pipeline) <= 1 for connection in api.connections)
    api.move(job, "succeeded")
    assert [wire.reply().status for _ in range(402)] == [200] * 201 + [404] + [200] * 200


def test_a_client_that_reads_no_answer_is_disconnected(limited: Start, wires: Open) -> None:
    api = limited(SEND_TIMEOUT_S="0.4", LINGER_S="0.4")
    wire = wires(api)
    requests = b"GET /openapi.json HTTP/1.1\r\n\r\n" * 1000
    with suppress(ConnectionError):
        while True:
            wire.send(requests)
    assert wait_until(lambda: not api.connections, timeout_s=DEADLINE_S)


def test_a_trailer_field_is_none_of_the_head(api: Any, acme: httpx.Client, wires: Open) -> None:
    wire = wires(api).request("POST", "/v1/jobs", "Transfer-Encoding: chunked")
    wire.send(b"2\r\n{}\r\n0\r\n" + authorization(acme).encode() + b"\r\n\r\n")
    assert wire.reply().status == 401


@pytest.mark.parametrize("fields", [("Upgrade: websocket",), ("Upgrade: h2c", "HTTP2-Settings: AAAA")])
def test_an_upgrade_is_not_taken(api: Any, wires: Open, fields: tuple[str, ...]) -> None:
    wire = wires(api).request("GET", "/healthz", "Connection: upgrade", *fields, body=b"\x81\x85" * 1000)
    assert wire.reply().status == 200
    assert wire.end() == b""
