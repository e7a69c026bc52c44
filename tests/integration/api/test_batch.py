"""Batches: each item gets the result that it would have got alone, in the order of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.integration.api.job_requests import job_body
from worker.jobs import due

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx


def send(client: httpx.Client, *items: Any, query: str = "") -> list[dict[str, Any]]:
    answer = client.post(f"/v1/jobs/batch{query}", json={"jobs": list(items)})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def codes(results: list[dict[str, Any]]) -> list[tuple[int, str | None]]:
    return [(result["status"], result.get("problem", {}).get("code")) for result in results]


def test_each_item_is_answered_in_order_whatever_is_wrong_with_the_others(api: Any, acme: httpx.Client) -> None:
    busy = acme.post("/v1/jobs", json=job_body("busy")).json()
    used = acme.post("/v1/jobs", json=job_body("used"), headers={"Idempotency-Key": "k"}).json()
    results = send(
        acme,
        job_body("a"),
        "no object",
        job_body("b", colour="blue"),
        job_body("busy"),
        job_body("c", store="others"),
        job_body("used", idempotency_key="k"),
        job_body("d", idempotency_key="k"),
        job_body("e/"),
        {"source": {"kind": "url", "url": "http://x"}, "store": "main", "key": "f"},
        job_body("g"),
    )
    assert codes(results) == [
        (202, None),
        (422, "invalid"),
        (422, "unknown_field"),
        (409, "key_busy"),
        (422, "unknown_store"),
        (202, None),
        (409, "idempotency_mismatch"),
        (422, "bad_key"),
        (422, "not_supported"),
        (202, None),
    ]
    assert results[3]["problem"]["job_id"] == busy["id"]
    assert results[5]["job"]["id"] == used["id"]
    kept = {row["key"]: str(row["id"]) for row in api.sql("SELECT id, key FROM job")}
    assert (results[0]["job"]["id"], results[9]["job"]["id"]) == (kept["a"], kept["g"])
    assert set(kept) == {"busy", "used", "a", "g"}


def test_the_jobs_of_a_batch_are_due_in_its_order(api: Any, acme: httpx.Client) -> None:
    """A lane's jobs of one priority are dispatched by id: the keys, by which they are inserted, do not matter."""
    requested = [f"{number:03d}" for number in range(200, 0, -1)]
    send(acme, *(job_body(key) for key in requested))
    with api.database.connection() as tx:
        in_order = [item.job_id for item in due.due_steps(tx, per_lane=1000, blocked=[], whole_bytes=0)]
    keys = {row["id"]: row["key"] for row in api.sql("SELECT id, key FROM job")}
    assert [keys[job] for job in in_order] == requested


def test_of_two_items_for_one_target_the_first_is_accepted(acme: httpx.Client) -> None:
    items = [job_body(str(number * 7 % 400), priority=number % 10) for number in range(800)]
    assert codes(send(acme, *items)) == [(202, None)] * 400 + [(409, "key_busy")] * 400


def test_items_of_one_batch_collide_like_requests(acme: httpx.Client) -> None:
    twin = job_body("b", idempotency_key="k")
    results = send(acme, job_body("a"), job_body("a"), twin, twin, job_body("c", idempotency_key="k"))
    outcomes = codes(results)
    assert sorted(outcomes[:2], key=str) == [(202, None), (409, "key_busy")]
    assert sorted(outcomes[2:], key=str) in (
        [(202, None), (202, None), (409, "idempotency_mismatch")],
        [(202, None), (409, "idempotency_mismatch"), (409, "idempotency_mismatch")],
    )
    if outcomes[2] == (202, None):
        assert results[2]["job"]["id"] == results[3]["job"]["id"]


def test_a_batch_is_made_once_however_often_it_is_sent(api: Any, acme: httpx.Client) -> None:
    items = [job_body(f"{number}", idempotency_key=f"k{number}") for number in range(50)]
    first, repeated = send(acme, *items), send(acme, *reversed(items))
    assert [result["job"]["id"] for result in first] == [result["job"]["id"] for result in reversed(repeated)]
    assert api.count("job") == 50


def test_a_quota_ends_a_batch_where_it_is_reached(make_api: Callable[..., Any], database_url: str) -> None:
    acme = make_api(database_url, SLICEWAY_MAX_LIVE_JOBS="3").client()
    assert codes(send(acme, *(job_body(f"{n}") for n in range(5)))) == [(202, None)] * 3 + [(429, "quota_exceeded")] * 2


def test_a_dry_run_returns_the_same_for_an_item_alone_and_in_a_batch(api: Any, acme: httpx.Client) -> None:
    """No file exists here, and a dry run does not notice: only workers read files."""
    acme.post("/v1/jobs", json=job_body("busy"))
    items = [
        job_body("a"),
        job_body("busy"),
        job_body("b/"),
        job_body("c", store="others"),
        job_body("d", source={"kind": "file"}),
    ]
    alone = [acme.post("/v1/jobs?dry_run=true", json=item) for item in items]
    together = send(acme, *items, query="?dry_run=true")
    assert [result["status"] for result in together] == [answer.status_code for answer in alone]
    for answer, result in zip(alone, together, strict=True):
        of_batch = result.get("job") or result["problem"]
        assert {**answer.json(), "instance": None} == {**of_batch, "instance": None}
    assert together[0]["job"]["dry_run"] is True
    assert api.count("job") == 1


def test_a_dry_run_of_a_batch_leaves_nothing(api: Any, acme: httpx.Client) -> None:
    results = send(acme, job_body("a"), job_body("a/"), query="?dry_run=true")
    assert codes(results) == [(200, None), (422, "bad_key")]
    assert results[0]["job"]["dry_run"] is True
    assert api.count("job") == 0


def test_a_batch_has_at_most_a_thousand_items(api: Any, acme: httpx.Client) -> None:
    items = [job_body(f"{number}") for number in range(1001)]
    assert codes(send(acme, *items[:1000])) == [(202, None)] * 1000
    answer = acme.post("/v1/jobs/batch", json={"jobs": items})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert acme.post("/v1/jobs/batch", json={"jobs": []}).status_code == 422
    assert (api.count("job"), api.count("event")) == (1000, 1000)


def test_a_batch_has_no_idempotency_key_of_its_own(acme: httpx.Client) -> None:
    answer = acme.post("/v1/jobs/batch", json={"jobs": [job_body("a")]}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_supported")
    assert acme.post("/v1/jobs", json=job_body("a", idempotency_key="k")).json()["code"] == "unknown_field"
