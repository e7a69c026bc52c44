"""A key is checked before the body, and bodies are bounded: with our protocol, and with those of uvicorn."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from api.app import create_app
from api.server.http_protocol import protocol_for
from tests.integration.api.conftest import settings_of
from tests.integration.api.job_requests import job_body
from tests.support.deadline import DEADLINE_S
from tests.support.wire import HttpTransport
from worker.db.pool import Database
from worker.jobs.api_keys import Scope, create_key
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
SERVERS = ["limited", "limited, unix socket", "httptools", "h11"]
JOB = json.dumps(job_body()).encode()


@contextmanager
def running(server: uvicorn.Server) -> Iterator[None]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert wait_until(lambda: server.started, timeout_s=DEADLINE_S)
        yield
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)


@pytest.fixture
def key(database_url: str) -> str:
    """The header field of a key with the scope `submit`."""
    database = Database(database_url, application="tests")
    with database.transaction() as tx:
        _, text = create_key(tx, "acme", [Scope.SUBMIT, Scope.READ])
    database.close()
    return f"Authorization: Bearer {text}"


Connect = Callable[[], HttpTransport]


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Callable[..., Connect]]:
    """Start the application with some limits on a plain uvicorn server with one of the protocols."""
    with ExitStack() as stack:

        def start(**limits: str) -> Connect:
            environ = {f"SLICEWAY_API_{name}": value for name, value in limits.items()}
            settings = settings_of(database_url, tmp_path / "stores.toml", **environ)
            protocol: Any = protocol_for(settings) if "limited" in request.param else request.param
            unix = str(tmp_path / "api") if "unix" in request.param else None
            server = uvicorn.Server(
                uvicorn.Config(create_app(settings), uds=unix, port=0, http=protocol, log_config=None)
            )
            stack.enter_context(running(server))
            return lambda: HttpTransport(unix or server.servers[0].sockets[0].getsockname()[1])

        yield start


@pytest.fixture
def connect(serve: Callable[..., Connect]) -> Connect:
    """Connect to a server whose time limits are long enough for a loaded machine."""
    return serve(BODY_TIMEOUT_S=f"{DEADLINE_S}", LINGER_S=f"{DEADLINE_S}")


def is_last_response(wire: HttpTransport, status: int, code: str) -> None:
    reply = wire.reply()
    assert (reply.status, reply.problem()["code"], reply.fields["connection"]) == (status, code, "close")


@pytest.mark.parametrize("field", ["X: no key", "Authorization: Bearer slw_unknown"])
@pytest.mark.parametrize("length", ["Content-Length: 4194885", "Transfer-Encoding: chunked"])
def test_a_client_without_a_key_gets_the_refusal_before_it_sends_the_body(
    connect: Connect, field: str, length: str
) -> None:
    for path in ("/v1/jobs", "/v1/jobs/batch"):
        with connect() as wire:
            wire.request("POST", path, field, length)
            is_last_response(wire, 401, "unauthenticated")  # no byte of the body was sent
        with connect() as wire:
            body = (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 64 + b"0\r\n\r\n"
            wire.request("POST", path, field, length, body=body)  # all of it, before the response is read
            is_last_response(wire, 401, "unauthenticated")
            assert wire.end() == b""


def test_a_body_that_waits_for_100_continue_is_not_requested_without_a_key(connect: Connect, key: str) -> None:
    fields = ("Expect: 100-continue", f"Content-Length: {len(JOB)}")
    with connect() as wire:
        wire.request("POST", "/v1/jobs", *fields)
        is_last_response(wire, 401, "unauthenticated")
    with connect() as wire:
        wire.request("POST", "/v1/jobs", key, *fields)
        assert wire.reply().status == 100
        assert wire.send(JOB).reply().status == 202


def test_a_small_body_that_has_arrived_keeps_the_connection(connect: Connect) -> None:
    with connect() as wire:
        for path, status in [("/v1/jobs", 401), ("/nowhere", 404), ("/healthz", 405)]:
            wire.request("POST", path, "Authorization: Bearer slw_unknown", f"Content-Length: {len(JOB)}", body=JOB)
            assert wire.reply().status == status
        assert wire.request("GET", "/healthz").reply().status == 200


def test_a_slow_body_is_timed_out(serve: Callable[..., Connect], key: str) -> None:
    with serve(BODY_TIMEOUT_S="0.3", LINGER_S="0.3")() as wire:
        wire.request("POST", "/v1/jobs", key, f"Content-Length: {len(JOB)}", body=JOB[:-1])
        is_last_response(wire, 408, "request_timeout")
        assert wire.end() == b""


def test_a_large_body_is_refused_by_its_length(connect: Connect, key: str) -> None:
    with connect() as wire:
        wire.request("POST", "/v1/jobs/batch", key, f"Content-Length: {8 * MIB + 1}")
        is_last_response(wire, 413, "too_large")
    with connect() as wire:
        wire.request("POST", "/v1/jobs", key, f"Content-Length: {2 * MIB}", body=b" " * 2 * MIB)
        is_last_response(wire, 413, "too_large")
        assert wire.end() == b""


def test_a_chunked_body_is_refused_when_it_is_too_large(connect: Connect, key: str) -> None:
    chunk = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    with connect() as wire:
        wire.request("POST", "/v1/jobs/batch", key, "Transfer-Encoding: chunked", body=chunk * 9 + b"0\r\n\r\n")
        is_last_response(wire, 413, "too_large")
        assert wire.end() == b""


def test_a_route_that_reads_no_body_bounds_it_too(serve: Callable[..., Connect], key: str) -> None:
    connect = serve(BODY_TIMEOUT_S="0.3", LINGER_S="0.3")
    job = "/v1/jobs/01890000-0000-7000-8000-000000000000"
    for method, path in [("GET", "/healthz"), ("GET", f"{job}?wait=30s"), ("POST", f"{job}/retry")]:
        with connect() as wire:
            wire.request(method, path, key, "Content-Length: 10000000")
            assert wire.reply().fields["connection"] == "close"
            assert wire.end() == b""


def test_a_body_in_pieces_is_accepted(connect: Connect, key: str) -> None:
    with connect() as wire:
        wire.request("POST", "/v1/jobs/batch", key, "Transfer-Encoding: chunked")
        for piece in (b'{"jobs": [', JOB, b", ", JOB.replace(b'"a"', b'"b"'), b" " * 300_000, b"]}"):
            wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        reply = wire.send(b"0\r\n\r\n").reply()
        assert (reply.status, reply.body.count(b'"status":202')) == (200, 2)
        assert wire.request("GET", "/healthz").reply().status == 200


def test_received_bytes_extend_the_deadline_of_a_body_at_the_low_speed(serve: Callable[..., Connect], key: str) -> None:
    connect = serve(BODY_TIMEOUT_S="0.2", LOW_SPEED_BYTES_PER_S="10")
    body = JOB + b" " * 10_000
    length = f"Content-Length: {len(body)}"
    with connect() as wire, connect() as other:
        wire.request("POST", "/v1/jobs", key, length, body=body[:-1])
        other.request("POST", "/v1/jobs", key, length)
        assert other.reply().status == 408  # began later, and has sent nothing
        assert wire.send(body[-1:]).reply().status == 202
