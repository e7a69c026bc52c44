"""A client with a key costs the others little: large bodies, bodies that break off."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from api.routes import jobs
from tests.integration.api.job_requests import enqueue, job_body
from tests.support.deadline import DEADLINE_S
from worker.local.process import wait_until

if TYPE_CHECKING:
    import httpx


def post(client: httpx.Client, *headers: str, content: bytes = b"") -> socket.socket:
    """Send a request to enqueue over a socket of its own."""
    host, port = client.base_url.host, client.base_url.port or 80
    sent = socket.create_connection((host, port), timeout=DEADLINE_S)
    lines = ["POST /v1/jobs HTTP/1.1", f"Host: {host}", *headers, "Content-Type: application/json", "", ""]
    sent.sendall("\r\n".join(lines).encode() + content)
    return sent


@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_body_that_breaks_off_is_no_error(
    own_api: Any, length: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    acme = own_api.client()
    authorization = f"Authorization: {acme.headers['Authorization']}"
    acme.get("/v1/jobs").raise_for_status()  # the key is known
    for _ in range(5):
        post(acme, authorization, length, content=b'9\r\n{"source"').close()
    assert wait_until(lambda: len(connections(acme)) == 1, timeout_s=DEADLINE_S)
    enqueue(acme)
    assert own_api.count("job") == 1
    assert [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
    assert "Traceback" not in capfd.readouterr().err


def connections(client: httpx.Client) -> list[str]:
    """The server's ends of the open connections."""
    with open("/proc/net/tcp") as table:  # noqa: PTH123
        local = f"0100007F:{client.base_url.port:04X}"
        return [line for line in table if line.split()[1] == local and line.split()[3] == "01"]


def test_while_large_bodies_are_parsed_other_requests_are_served(
    acme: httpx.Client, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, parse_batch = threading.Semaphore(0), threading.Event(), jobs.parse_batch

    def held(body: bytes) -> Any:
        begun.release()
        assert go_on.wait(DEADLINE_S)
        return parse_batch(body)

    monkeypatch.setattr(jobs, "parse_batch", held)
    large = json.dumps({"jobs": [job_body(f"{n}", attributes="x" * 1024) for n in range(500)]})
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(acme.post, "/v1/jobs/batch", content=large) for _ in range(40)]
        assert begun.acquire(timeout=DEADLINE_S)
        assert acme.get("/healthz").status_code == 200
        assert acme.get("/v1/jobs").status_code == 200  # though there are only 16 threads for requests
        enqueue(acme)
        assert not any(answer.done() for answer in answers)
        assert not begun.acquire(blocking=False), "several are parsed at once"
        go_on.set()
        assert {answer.result(DEADLINE_S).status_code for answer in answers} == {200}
    assert api.count("job") == 501
