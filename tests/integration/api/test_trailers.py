"""A trailer behind a chunked body is no part of the request's head."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import job_body
from tests.support.deadline import DEADLINE_S

if TYPE_CHECKING:
    import httpx

BODY = json.dumps(job_body()).encode()


def status(client: httpx.Client, head: list[str], trailer: list[str], *, at_once: bool) -> int:
    """Send a chunked body with a trailer, in one piece or in several; returns the status of the answer."""
    host, port = client.base_url.host, client.base_url.port or 80
    lines = [
        "POST /v1/jobs HTTP/1.1",
        f"Host: {host}",
        *head,
        "Transfer-Encoding: chunked",
        "Connection: close",
        "",
        "",
    ]
    pieces = ["\r\n".join(lines).encode(), b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)]
    pieces.append("\r\n".join([*trailer, "", ""]).encode())
    with socket.create_connection((host, port), timeout=DEADLINE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [b"".join(pieces)] if at_once else pieces:
            line.sendall(piece)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    return int(answer.split()[1])


@pytest.mark.parametrize("at_once", [True, False])
def test_a_key_in_the_trailer_is_none(api: Any, acme: httpx.Client, at_once: bool) -> None:
    acme.get("/v1/jobs").raise_for_status()  # the key is known
    key = f"Authorization: {acme.headers['Authorization']}"
    assert status(acme, ["Trailer: Authorization"], [key], at_once=at_once) == 401
    assert status(acme, ["Authorization: Bearer slw_none"], [key], at_once=at_once) == 401
    assert api.count("job") == 0
    assert status(acme, [key], ["Authorization: Bearer slw_none", "Idempotency-Key: a b"], at_once=at_once) == 202
    assert api.count("job") == 1


def test_a_head_that_follows_a_trailer_is_whole(acme: httpx.Client) -> None:
    key = f"Authorization: {acme.headers['Authorization']}"
    host, port = acme.base_url.host, acme.base_url.port or 80
    first = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n{key}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n"
    second = f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n{key}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=DEADLINE_S) as line:
        line.sendall((first + second).encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 200 " in answer
