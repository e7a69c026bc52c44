"""Long polls: they end with the job, and leave room for other requests."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest

from api.waiters import MAX_WAITERS
from tests.integration.api.job_requests import enqueue
from tests.support.deadline import DEADLINE_S
from worker.jobs.api_keys import list_keys, revoke_key
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


class Waiting:
    """A request that waits, sent over a socket of its own."""

    def __init__(self, client: httpx.Client, job: str, wait: str = "60s") -> None:
        url = client.base_url
        self._socket = socket.create_connection((url.host, url.port or 80), timeout=DEADLINE_S)
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
def all_places(api: Any, acme: httpx.Client) -> Iterator[tuple[str, list[Waiting]]]:
    """A job, and as many waiters for it as there are places; each tenant has half of those that were free."""
    until(lambda: len(api.waiters) == 0)
    job = enqueue(acme)
    with ExitStack() as stack:
        waiting: list[Waiting] = []
        for tenant in range(MAX_WAITERS):
            client = acme if tenant == 0 else api.client(f"tenant-{tenant}", "admin")
            share = -(-(MAX_WAITERS - len(waiting)) // 2)
            waiting += [stack.enter_context(Waiting(client, job)) for _ in range(share)]
            expected = len(waiting)
            until(lambda expected=expected: len(api.waiters) == expected)
            if len(waiting) == MAX_WAITERS:
                break
            if tenant < 3:
                with Waiting(client, job) as one_more:
                    assert one_more.answer()[0] == 503
        yield job, waiting


def until(true: Any) -> None:
    assert wait_until(true, timeout_s=DEADLINE_S)


def test_a_waiter_is_answered_when_the_job_ends(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(acme.get, f"/v1/jobs/{job}", params={"wait": "60s"})
        until(lambda: len(api.waiters) == 1)
        api.move(job, "succeeded")
        assert answer.result(120).json()["state"] == "succeeded"


def test_the_answer_comes_when_the_time_is_over(acme: httpx.Client) -> None:
    job = enqueue(acme)
    assert acme.get(f"/v1/jobs/{job}", params={"wait": "1s"}).json()["state"] == "queued"


def test_no_request_waits_for_a_job_that_has_ended(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme)
    api.move(job, "failed")
    assert acme.get(f"/v1/jobs/{job}", params={"wait": "60s"}).json()["state"] == "failed"


def test_with_all_places_taken_the_api_enqueues_and_refuses_the_next_waiter(
    api: Any, acme: httpx.Client, all_places: tuple[str, list[Waiting]]
) -> None:
    job, waiting = all_places
    for number in range(20):
        enqueue(acme, f"{number}")
    refused = acme.get(f"/v1/jobs/{job}", params={"wait": "60s"})
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiters")
    assert int(refused.headers["Retry-After"]) > 0
    assert acme.get(f"/v1/jobs/{job}").status_code == 200
    in_use = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'sliceway api' AND state <> 'idle'"
    assert api.sql(in_use)[0]["n"] <= 1  # that of the thread that polls
    api.move(job, "succeeded")
    answers = [each.answer() for each in waiting]
    assert {(status, view["state"]) for status, view in answers} == {(200, "succeeded")}


def test_a_client_that_disconnects_frees_its_place(api: Any, all_places: tuple[str, list[Waiting]]) -> None:
    job, waiting = all_places
    waiting[0].__exit__()
    until(lambda: len(api.waiters) == MAX_WAITERS - 1)
    with Waiting(api.client("late", "admin"), job, "1s") as late:
        assert late.answer()[0] == 200


def test_one_tenant_leaves_places_for_the_others(api: Any, acme: httpx.Client) -> None:
    until(lambda: len(api.waiters) == 0)
    job, other = enqueue(acme), api.client("umbrella")
    others = enqueue(other, "b")
    with ExitStack() as stack:
        waiting = [stack.enter_context(Waiting(acme, job)) for _ in range(MAX_WAITERS)]
        until(lambda: len(api.waiters) == MAX_WAITERS // 2)
        assert other.get(f"/v1/jobs/{others}", params={"wait": "1s"}).json()["state"] == "queued"
        api.move(job, "succeeded")
        answers = [each.answer() for each in waiting]
    assert [status for status, _ in answers].count(200) == MAX_WAITERS // 2
    refusals = [problem for status, problem in answers if status == 503]
    assert {problem["code"] for problem in refusals} == {"too_many_waiters"}
    assert all("acme" in problem["detail"] for problem in refusals)


def test_a_waiter_whose_key_is_revoked_is_refused_long_before_the_time_is_over(api: Any, acme: httpx.Client) -> None:
    until(lambda: len(api.waiters) == 0)
    job = enqueue(acme)
    with api.database.transaction() as tx:
        [revoked] = list_keys(tx, "acme")
    with Waiting(api.client(), job) as good, Waiting(acme, job) as one, Waiting(acme, job) as other:
        until(lambda: len(api.waiters) == 3)
        with api.database.transaction() as tx:
            revoke_key(tx, revoked.id)
        for each in (one, other):
            status, problem = each.answer()
            assert (status, problem["code"]) == (401, "unauthenticated")
        assert len(api.waiters) == 1  # its time is not over yet
        api.move(job, "succeeded")
        assert good.answer()[0] == 200
