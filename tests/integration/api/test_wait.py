"""Waiting for a job costs nobody else anything."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest

from api.waiters import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

WISH = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": "a"}


class Waiting:
    """A request that waits, sent over a socket of its own."""

    def __init__(self, client: httpx.Client, job: str, wait: str = "60s") -> None:
        url = client.base_url
        self._socket = socket.create_connection((url.host, url.port or 80), timeout=30)
        lines = [
            f"GET /v1/jobs/{job}?wait={wait} HTTP/1.1",
            f"Host: {url.host}",
            f"Authorization: {client.headers['Authorization']}",
            "Connection: close",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def answer(self) -> tuple[int, dict[str, Any]]:
        text = b"".join(iter(lambda: self._socket.recv(65536), b""))
        head, _, body = text.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


@pytest.fixture
def crowd(api: Any, acme: httpx.Client) -> Iterator[tuple[str, list[Waiting]]]:
    """A job, and as many who wait for it as may."""
    until(lambda: len(api.waiters) == 0)
    job = acme.post("/v1/jobs", json=WISH).json()["id"]
    with ExitStack() as stack:
        waiting = [stack.enter_context(Waiting(acme, job)) for _ in range(MOST)]
        until(lambda: len(api.waiters) == MOST)
        yield job, waiting


def until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("it never came true")


def test_who_waits_is_answered_when_the_job_ends(api: Any, acme: httpx.Client) -> None:
    job = acme.post("/v1/jobs", json=WISH).json()["id"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(acme.get, f"/v1/jobs/{job}", params={"wait": "60s"})
        until(lambda: len(api.waiters) == 1)
        api.move(job, "succeeded")
        assert answer.result(120).json()["state"] == "succeeded"


def test_the_answer_comes_when_the_time_is_over(acme: httpx.Client) -> None:
    job = acme.post("/v1/jobs", json=WISH).json()["id"]
    assert acme.get(f"/v1/jobs/{job}", params={"wait": "1s"}).json()["state"] == "queued"


def test_nobody_waits_for_a_job_that_has_ended(api: Any, acme: httpx.Client) -> None:
    job = acme.post("/v1/jobs", json=WISH).json()["id"]
    api.move(job, "failed")
    assert acme.get(f"/v1/jobs/{job}", params={"wait": "60s"}).json()["state"] == "failed"


def test_a_full_house_still_enqueues_and_turns_the_next_one_away(
    api: Any, acme: httpx.Client, crowd: tuple[str, list[Waiting]]
) -> None:
    job, waiting = crowd
    for number in range(20):
        assert acme.post("/v1/jobs", json=WISH | {"key": f"{number}"}).status_code == 202
    refused = acme.get(f"/v1/jobs/{job}", params={"wait": "60s"})
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiters")
    assert int(refused.headers["Retry-After"]) > 0
    assert acme.get(f"/v1/jobs/{job}").status_code == 200
    in_use = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'sliceway api' AND state <> 'idle'"
    assert api.sql(in_use)[0]["n"] <= 1  # the watcher's
    api.move(job, "succeeded")
    answers = [each.answer() for each in waiting]
    assert {(status, view["state"]) for status, view in answers} == {(200, "succeeded")}


def test_who_goes_away_makes_room(api: Any, acme: httpx.Client, crowd: tuple[str, list[Waiting]]) -> None:
    job, waiting = crowd
    waiting[0].__exit__()
    until(lambda: len(api.waiters) == MOST - 1)
    with Waiting(acme, job, "1s") as late:
        assert late.answer()[0] == 200


def test_a_server_that_stops_lets_all_go(own_api: Any) -> None:
    client = own_api.client()
    job = client.post("/v1/jobs", json=WISH).json()["id"]
    with Waiting(client, job) as one, Waiting(client, job) as other:
        until(lambda: len(own_api.waiters) == 2)
        own_api.stop()
        assert {one.answer()[0], other.answer()[0]} == {200}
