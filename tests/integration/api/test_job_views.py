"""Views of jobs, slices and events, and actions; a tenant reaches its own jobs only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.integration.api.job_requests import enqueue

if TYPE_CHECKING:
    import httpx


def keys(client: httpx.Client, **query: Any) -> list[str]:
    answer = client.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["key"] for job in answer.json()["items"]]


def slices(api: Any, job: str, count: int, done: int) -> None:
    api.sql(
        "INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, claimed_at, done_at)"
        " SELECT %(job)s, n, n * 1000, 1000, CASE WHEN n < %(done)s THEN 'done' ELSE 'pending' END, 0,"
        " CASE WHEN n < %(done)s THEN now() - interval '4 s' END, CASE WHEN n < %(done)s THEN now() END"
        " FROM generate_series(0, %(count)s - 1) n",
        job=job,
        count=count,
        done=done,
    )


def test_a_tenant_sees_its_own_jobs_only(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    other = api.client("umbrella")
    for method, path in [
        ("GET", ""),
        ("GET", "?wait=1s"),
        ("GET", "/slices"),
        ("GET", "/events"),
        ("POST", "/retry"),
        ("POST", "/cancel"),
    ]:
        answer = other.request(method, f"/v1/jobs/{job}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert keys(other) == []
    assert other.get("/v1/jobs", params={"tenant": "acme"}).status_code == 403
    assert acme.get(f"/v1/jobs/{job}").json()["state"] == "queued"


def test_an_admin_sees_and_moves_the_jobs_of_all_tenants(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    admin = api.client("ops", "admin")
    enqueue(admin, "b")
    assert keys(admin) == ["b", "a"]
    assert keys(admin, tenant="acme") == ["a"]
    assert admin.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"


def test_filters_choose_and_combine(api: Any, acme: httpx.Client) -> None:
    first = enqueue(acme, "videos/a", labels={"order": "17", "kind": "x"})
    enqueue(acme, "videos/b", labels={"order": "18"}, store="same-bucket")
    enqueue(acme, "photos/%c_")
    failure = {"code": "source_gone", "message": "m", "advice": "a", "at": "2026-01-01T00:00:00Z"}
    api.move(first, "failed", error=json.dumps(failure))
    assert (
        keys(acme, state="failed")
        == keys(acme, error_code="source_gone")
        == keys(acme, label="order:17")
        == ["videos/a"]
    )
    assert keys(acme, state=["failed", "queued"]) == ["photos/%c_", "videos/b", "videos/a"]
    assert keys(acme, key_prefix="videos/") == ["videos/b", "videos/a"]
    assert keys(acme, key_prefix="photos/%c_") == ["photos/%c_"]
    assert keys(acme, key_prefix="%") == []
    assert keys(acme, store="same-bucket") == ["videos/b"]
    assert keys(acme, label=["order:17", "kind=x", "order=17"]) == ["videos/a"]
    enqueue(acme, "videos/c", labels={"of": "a:b=c"})
    assert keys(acme, label="of=a:b=c") == keys(acme, label="of:a:b=c") == ["videos/c"]
    assert keys(acme, label=["order:17", "kind:y"]) == []
    assert (
        keys(acme, created_from="2100-01-01T00:00:00Z") == keys(acme, created_before="2000-01-01T00:00:00+08:00") == []
    )
    assert len(keys(acme, created_from="2000-01-01T00:00:00Z", created_before="2100-01-01T00:00:00Z")) == 4


def test_the_edges_of_a_time_range_are_in_and_out(acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    at = acme.get(f"/v1/jobs/{job}").json()["created_at"]
    assert keys(acme, created_from=at) == ["a"]
    assert keys(acme, created_before=at) == []


def test_pages_are_stable_while_jobs_are_enqueued(acme: httpx.Client) -> None:
    expected = [f"{number:02}" for number in range(25)]
    for key in expected:
        enqueue(acme, key)
    seen: list[str] = []
    cursor: str | None = None
    for page in range(3):
        query = {"limit": 10} | ({"cursor": cursor} if cursor else {})
        answer = acme.get("/v1/jobs", params=query).json()
        seen += [job["key"] for job in answer["items"]]
        cursor = answer["next_cursor"]
        enqueue(acme, f"new-{page}")
    assert cursor is None
    assert seen == expected[::-1]


def test_a_job_that_uploads_has_progress_throughput_and_eta(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    slices(api, job, count=10, done=4)
    api.move(job, "uploading", size_bytes=10_000, slice_bytes=1000, slices_total=10, slices_left=6, bytes_done=4000)
    view = acme.get(f"/v1/jobs/{job}").json()
    expected = {"bytes_done": 4000, "size_bytes": 10_000, "slices_done": 4, "slices_total": 10, "percent": 40.0}
    assert view["progress"] == expected | {"bytes_in_flight": 0}
    assert 500 < view["throughput_bytes_per_s"] <= 1000
    assert view["eta_s"] == -(-6000 // view["throughput_bytes_per_s"])


def test_bytes_in_flight_count_in_the_job_and_in_the_list(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    slices(api, job, count=10, done=4)
    api.move(job, "uploading", size_bytes=10_000, slice_bytes=1000, slices_total=10, slices_left=6, bytes_done=4000)
    worker = str(uuid4())
    sending = [{"job": job, "number": 4, "token": 1, "bytes": 555, "size": 1000, "for_s": 1.0}]
    api.sql(
        "INSERT INTO worker (id, name, slots, roots, sending) VALUES (%(worker)s, 'w', 1, '{}', %(sending)s::jsonb)",
        worker=worker,
        sending=json.dumps(sending),
    )
    api.sql("UPDATE slice SET state = 'sending', token = 1, worker = %(worker)s WHERE number = 4", worker=worker)
    view = acme.get(f"/v1/jobs/{job}").json()
    assert view["progress"]["bytes_in_flight"] == 555
    assert view["progress"]["percent"] == 45.5
    assert view["eta_s"] == -(-5445 // view["throughput_bytes_per_s"])
    [listed] = acme.get("/v1/jobs").json()["items"]
    assert listed["progress"] == view["progress"]
    assert listed["throughput_bytes_per_s"] > 0
    assert listed["eta_s"] == -(-5445 // listed["throughput_bytes_per_s"])


def test_a_job_is_at_100_percent_only_after_it_has_succeeded(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    api.move(job, "finishing", size_bytes=10_000, slice_bytes=1000, slices_total=10, slices_left=0, bytes_done=10_000)
    assert acme.get(f"/v1/jobs/{job}").json()["progress"]["percent"] == 99.9
    api.move(job, "succeeded")
    assert acme.get(f"/v1/jobs/{job}").json()["progress"]["percent"] == 100.0


def test_a_view_has_what_the_job_waits_for_and_never_its_session(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    failure = {"code": "store_unavailable", "message": "503 from http://c/k?sign=ZmFrZQ", "advice": "a", "at": "x"}
    session = {"session": "fake-session-handle"}
    api.move(job, "uploading", error=json.dumps(failure), session=json.dumps(session))
    api.sql("UPDATE job SET not_before = now() + interval '1 h', failing_since = now(), attempts = 2")
    answer = acme.get(f"/v1/jobs/{job}")
    assert answer.json()["waiting"]["not_before"] > answer.json()["waiting"]["failing_since"]
    assert answer.json()["error"]["message"] == "503 from http://c/k?sign=***"
    assert "fake-session-handle" not in answer.text
    assert "ZmFrZQ" not in answer.text


def test_slices_are_listed_by_number_and_page_by_page(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    slices(api, job, count=5, done=2)
    first = acme.get(f"/v1/jobs/{job}/slices", params={"limit": 3}).json()
    rest = acme.get(f"/v1/jobs/{job}/slices", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [s["number"] for s in first["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert [s["state"] for s in first["items"]] == ["done", "done", "pending"]
    assert (rest["next_cursor"], rest["summary"]) == (None, None)


def test_after_success_slices_are_a_summary(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    summary = {"slices": 3, "sends": 4, "failed_attempts": 1, "deaths": 0}
    api.move(job, "succeeded", result=json.dumps({"size_bytes": 1, "slices": summary}))
    answer = acme.get(f"/v1/jobs/{job}/slices").json()
    assert (answer["items"], answer["summary"]) == ([], summary)


def test_the_history_is_listed_oldest_first(acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    acme.post(f"/v1/jobs/{job}/cancel")
    acme.post(f"/v1/jobs/{job}/retry")
    first = acme.get(f"/v1/jobs/{job}/events", params={"limit": 2}).json()
    rest = acme.get(f"/v1/jobs/{job}/events", params={"cursor": first["next_cursor"]}).json()
    kinds = [event["kind"] for event in first["items"] + rest["items"]]
    assert kinds == ["enqueued", "cancel_requested", "cancelled", "retried"]
    assert rest["items"][-1]["to_state"] == "queued"
    assert rest["next_cursor"] is None


def test_actions_are_idempotent_and_refused_where_they_are_impossible(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    assert acme.post(f"/v1/jobs/{job}/retry").json() == {"id": job, "state": "queued"}
    for _ in range(2):
        assert acme.post(f"/v1/jobs/{job}/cancel").json() == {"id": job, "state": "cancelled"}
    for _ in range(2):
        assert acme.post(f"/v1/jobs/{job}/retry").json() == {"id": job, "state": "queued"}
    api.move(job, "succeeded")
    assert acme.post(f"/v1/jobs/{job}/cancel").json()["code"] == "not_cancellable"
    assert acme.post(f"/v1/jobs/{job}/retry").json()["code"] == "not_retryable"


def test_a_retry_while_another_job_has_the_target_is_refused(api: Any, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    api.move(job, "failed")
    enqueue(acme, "a")
    answer = acme.post(f"/v1/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "key_busy")


@pytest.mark.parametrize("later", ["acme", "umbrella"])
def test_a_retry_of_what_was_replaced_since_needs_force(api: Any, acme: httpx.Client, later: str) -> None:
    job = enqueue(acme, "a")
    api.move(job, "failed")
    newer = enqueue(api.client(later), "a")
    api.move(newer, "succeeded")
    answer = acme.post(f"/v1/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "superseded")
    assert (newer in answer.text) == (later == "acme")
    assert acme.post(f"/v1/jobs/{job}/retry?force=true").json()["state"] == "queued"
