"""`GET /v1/jobs/{id}/why` and `GET /v1/why`: what is said, to whom, and that no secret is in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from api.views.why import JobWhyView, QueueWhyView
from tests.integration.api.conftest import STORES, Api
from tests.integration.api.job_requests import enqueue, job_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

REFUSED = {
    "code": "store_unusable",
    "message": "the key fake-secret-key is not known",
    "advice": "Correct it.",
    "at": "x",
}
BUSY = {"code": "store_unavailable", "message": "503", "advice": "Nothing.", "at": "x"}


@pytest.fixture
def engine(api: Api) -> Iterator[UUID]:
    """A live worker of two slots, a dispatcher that leads, and links that are known to be fast."""
    worker = uuid4()
    api.sql(
        "INSERT INTO store_link (store, goodput_bytes_per_s, answer_bytes, answer_s)"
        " VALUES ('main', 1e12, 1e6, 0.01), ('discreet', 1e12, 1e6, 0.01)"
    )
    api.sql(
        "INSERT INTO worker (id, name, slots, roots, heartbeat_at)"
        " VALUES (%(id)s, 'w:1', 2, '{media}', now() + interval '1 hour')",
        id=worker,
    )
    api.sql(
        "INSERT INTO leadership (name, holder, term, until)"
        " VALUES ('dispatcher', %(id)s, 1, now() + interval '1 hour')",
        id=worker,
    )
    yield worker
    api.sql("TRUNCATE worker, leadership, store_link")


def why(client: httpx.Client, job: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{job}/why")
    assert answer.status_code == 200, answer.text
    return JobWhyView.model_validate_json(answer.content).model_dump(mode="json")


def why_all(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/v1/why")
    assert answer.status_code == 200, answer.text
    return QueueWhyView.model_validate_json(answer.content).model_dump(mode="json")


def counted(found: dict[str, Any]) -> list[tuple[str, int]]:
    return [(each["code"], each["jobs"]) for each in found["reasons"]]


def open_breaker(api: Api) -> None:
    api.sql(
        "INSERT INTO breaker (store, error, opened_at, probe_at)"
        " VALUES ('main', %(error)s, '2026-01-02T03:04:05Z', '2126-01-02T03:05:05Z')",
        error=json.dumps(REFUSED),
    )


@pytest.mark.usefixtures("engine")
def test_a_job_behind_a_breaker_has_its_words_and_times_and_no_secret(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    open_breaker(api)
    found = why(acme, job)
    assert (found["waits"], found["state"], found["summary"]) == (True, "queued", found["reasons"][0]["words"])
    (reason,) = found["reasons"]
    assert (reason["code"], reason["since"], reason["until"]) == (
        "breaker_open", "2026-01-02T03:04:05Z", "2126-01-02T03:05:05Z",
    )  # fmt: skip
    assert reason["advice"] == "Correct it."
    assert "Store main is unusable since 2026-01-02 03:04:05Z" in reason["words"]
    assert "is not known" in reason["words"]
    assert "fake-secret-key" not in json.dumps(found)
    assert acme.get(f"/v1/jobs/{job}").json()["urls"]["why"] == f"/v1/jobs/{job}/why"


def test_without_workers_every_job_says_so(api: Api, acme: httpx.Client) -> None:
    api.sql("TRUNCATE worker, leadership")
    reason = why(acme, enqueue(acme))["reasons"][0]
    assert (reason["code"], reason["since"]) == ("no_worker", None)
    assert reason["advice"] == "Start one: `sliceway worker`."
    api.sql("INSERT INTO worker (id, name, slots, roots) VALUES (%(id)s, 'w', 2, '{}')", id=uuid4())
    assert [each["code"] for each in why(acme, enqueue(acme, "b"))["reasons"]] == ["no_leader"]
    api.sql("TRUNCATE worker")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_job_that_has_ended_waits_for_nothing(api: Api, acme: httpx.Client, state: str) -> None:
    job = enqueue(acme)
    api.move(job, state)
    found = why(acme, job)
    assert (found["waits"], found["reasons"]) == (False, [])
    assert found["summary"] == f"The job has ended ({state}): it waits for nothing."


def test_a_job_that_runs_says_what_runs(api: Api, acme: httpx.Client, engine: UUID) -> None:
    job = enqueue(acme)
    api.move(job, "initializing", step="running", worker=engine)
    found = why(acme, job)
    assert (found["waits"], [each["code"] for each in found["reasons"]]) == (False, ["running"])
    assert found["summary"] == "Runs: a worker has its init."
    assert why(api.client("acme", "admin"), job)["summary"] == "Runs: worker w:1 has its init."
    api.move(job, "uploading", worker=None)
    api.sql(
        "INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, worker, claimed_at)"
        " SELECT %(job)s, n, n, 1, 'sending', 1, %(worker)s, now() FROM generate_series(0, 2) AS n",
        job=job,
        worker=engine,
    )
    found = why(acme, job)
    assert (found["waits"], found["reasons"][0]["data"]["slices_in_flight"]) == (False, 3)
    assert found["reasons"][0]["data"]["bytes_per_s"] == 0


@pytest.mark.usefixtures("engine")
def test_who_paused_it_and_why(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    api.sql("UPDATE job SET paused_at = '2026-01-02T03:04:05Z', pause_reason = 'disk full' WHERE id = %(id)s", id=job)
    api.sql("INSERT INTO event (job_id, kind, epoch, actor) VALUES (%(id)s, 'paused', 1, 'key 7')", id=job)
    (reason,) = why(acme, job)["reasons"]
    assert reason["words"] == "Paused by key 7 since 2026-01-02 03:04:05Z: disk full."
    assert reason["data"] == {"by": "key 7", "reason": "disk full"}


def test_a_job_that_the_stores_file_no_longer_serves(make_api: Callable[..., Api], database_url: str) -> None:
    before = make_api(database_url)
    job = enqueue(before.client(), store="same-bucket")
    after = make_api(database_url, stores=STORES.replace("[stores.same-bucket]", "[stores.another]"))
    reason = why(after.client(), job)["reasons"][0]
    assert reason["code"] == "store_changed"
    assert "same-bucket" in reason["words"]


@pytest.mark.usefixtures("engine")
def test_who_may_ask(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    for client, status in [
        (api.bare(), 401),
        (api.client("acme", "submit"), 403),
        (api.client("acme", "operate"), 403),
        (api.client("acme", "read"), 200),
        (api.client("umbrella", "read"), 404),
        (api.client("umbrella", "admin"), 200),
    ]:
        assert client.get(f"/v1/jobs/{job}/why").status_code == status
        assert client.get("/v1/why").status_code == (200 if status == 404 else status)
    assert acme.get(f"/v1/jobs/{uuid4()}/why").status_code == 404


@pytest.mark.usefixtures("engine")
def test_all_that_wait_are_counted_once_the_most_important_reason_first(api: Api, acme: httpx.Client) -> None:
    for place in ({"store": "main"}, {"store": "discreet"}):
        items = [job_body(f"{place['store']}/{n}", **place) for n in range(12)]
        acme.post("/v1/jobs/batch", json={"jobs": items}).raise_for_status()
    umbrella = api.client("umbrella", "submit read")
    enqueue(umbrella, "u", store="discreet")
    open_breaker(api)
    api.sql(
        "UPDATE job SET not_before = now() + interval '1 hour', error = %(error)s, failing_since = now()"
        " WHERE key LIKE 'discreet/1%%'",
        error=json.dumps(BUSY),
    )
    api.sql("UPDATE job SET paused_at = now(), pause_reason = 'why' WHERE key = 'discreet/2'")
    running = api.sql("SELECT id FROM job WHERE key = 'discreet/3'")[0]["id"]
    api.move(str(running), "initializing", step="running")
    found = why_all(api.client("acme", "admin"))
    assert (found["waiting"], found["running"]) == (24, 1)
    assert counted(found) == [("breaker_open", 12), ("slot", 8), ("retry_later", 3), ("paused", 1)]
    assert found["reasons"][2]["data"]["error"] == {"code": "store_unavailable", "message": "503"}
    assert counted(why_all(acme)) == [("breaker_open", 12), ("slot", 7), ("retry_later", 3), ("paused", 1)]
    theirs = why_all(umbrella)
    assert (theirs["waiting"], counted(theirs)) == (1, [("due", 1)])
    assert "acme" not in json.dumps(theirs)


def test_what_holds_the_engine_is_said_first_even_if_no_job_waits_for_it_alone(api: Api, acme: httpx.Client) -> None:
    api.sql("TRUNCATE worker, leadership")
    job = enqueue(acme)
    assert counted(why_all(acme)) == [("no_worker", 1)]
    api.sql("UPDATE job SET paused_at = now() WHERE id = %(id)s", id=job)
    assert counted(why_all(acme)) == [("no_worker", 0), ("paused", 1)]


@pytest.mark.usefixtures("engine")
def test_reasons_of_several_jobs_have_the_earliest_times_and_only_words_that_hold_for_all(
    api: Api, acme: httpx.Client
) -> None:
    jobs = [enqueue(acme, key) for key in "abc"]
    for job, hours in zip(jobs, (3, 1, 2), strict=True):
        api.sql(
            "UPDATE job SET not_before = date_trunc('second', now()) + make_interval(hours => %(hours)s),"
            " error = %(error)s WHERE id = %(id)s",
            id=job,
            hours=hours,
            error=json.dumps(BUSY | {"message": f"503 of {job}"}),
        )
    (reason,) = why_all(acme)["reasons"]
    assert reason["until"] == why(acme, jobs[1])["reasons"][0]["until"]
    assert (reason["jobs"], reason["data"]["error"]) == (3, {"code": "store_unavailable"})


@pytest.mark.usefixtures("engine")
def test_no_live_job_waits_for_nothing(acme: httpx.Client) -> None:
    found = why_all(acme)
    assert (found["waiting"], found["running"], found["reasons"]) == (0, 0, [])
