"""The actions on a job: their answers, their bodies, and what the history keeps of who asked for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.integration.api.job_requests import enqueue, job_body
from worker.jobs.states import JobState

if TYPE_CHECKING:
    import httpx

    from tests.integration.api.conftest import Api

ACTIONS = ("retry", "cancel", "abandon", "pause", "resume", "priority", "start")
PRIORITY = {"priority": 1}


def act(client: httpx.Client, job: str, action: str, body: Any = None, **headers: str) -> httpx.Response:
    """Send an action; the only one that needs a body has one."""
    body = PRIORITY | (body or {}) if action == "priority" else body
    return client.post(f"/v1/jobs/{job}/{action}", json=body, headers=headers)


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    """Check that a request was refused with a problem document."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def last_event(client: httpx.Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/jobs/{job}/events").json()["items"][-1]
    return found


def test_requests_without_a_body_are_answered_as_ever(api: Api, acme: httpx.Client) -> None:
    """Whatever their head says of the type of the body that they do not have."""
    failed, live = enqueue(acme, "a"), enqueue(acme, "b")
    api.move(failed, "failed")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    retried = acme.post(f"/v1/jobs/{failed}/retry", headers=form)
    assert (retried.status_code, retried.content) == (200, f'{{"id":"{failed}","state":"queued"}}'.encode())
    cancelled = acme.post(f"/v1/jobs/{live}/cancel", headers=form)
    assert (cancelled.status_code, cancelled.content) == (200, f'{{"id":"{live}","state":"cancelled"}}'.encode())
    assert last_event(acme, failed)["cause"] == {"force": False, "fresh": True}
    assert [event["cause"] for event in acme.get(f"/v1/jobs/{live}/events").json()["items"]][-2:] == [None, None]


def test_a_job_is_paused_and_resumed(acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    paused = act(acme, job, "pause", {"reason": "the network is serviced"})
    assert paused.json() == {"id": job, "state": "queued", "changed": True}
    waiting = acme.get(f"/v1/jobs/{job}").json()["waiting"]
    assert (waiting["pause_reason"], waiting["paused_at"] is None) == ("the network is serviced", False)
    assert act(acme, job, "pause", {"reason": "another"}).json()["changed"] is False
    assert act(acme, job, "resume").json() == {"id": job, "state": "queued", "changed": True}
    assert act(acme, job, "resume").json()["changed"] is False
    assert acme.get(f"/v1/jobs/{job}").json()["waiting"]["paused_at"] is None


def test_a_job_gets_another_priority(acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    assert act(acme, job, "priority").json() == {"id": job, "state": "queued", "changed": True}
    assert act(acme, job, "priority").json()["changed"] is False
    assert acme.get(f"/v1/jobs/{job}").json()["priority"] == PRIORITY["priority"]
    assert last_event(acme, job)["cause"] == {"from": 5, "to": 1}


def test_a_start_says_what_holds_the_job_back_nevertheless(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    api.sql("UPDATE job SET not_before = now() + interval '1 hour'")
    assert act(acme, job, "start").json() == {"id": job, "state": "queued", "changed": True, "held_back": []}
    assert acme.get(f"/v1/jobs/{job}").json()["waiting"]["not_before"] is None
    act(acme, job, "pause")
    api.sql("""INSERT INTO breaker (store, error, probe_at) VALUES ('main', '{"message": "no such bucket"}', now())""")
    answer = act(acme, job, "start").json()
    assert answer["changed"] is False
    assert [(hold["by"], hold["reason"]) for hold in answer["held_back"]] == [
        ("job_paused", None), ("store_unusable", "no such bucket"),
    ]  # fmt: skip


def test_a_job_is_abandoned(api: Api, acme: httpx.Client) -> None:
    begun, waiting = enqueue(acme, "a"), enqueue(acme, "b")
    api.move(begun, "uploading", started_at="now()", session="{}")
    assert act(acme, begun, "abandon", {"reason": "gone"}).json() == {
        "id": begun, "state": "cancelling", "changed": True,
    }  # fmt: skip
    assert act(acme, begun, "abandon").json() == {"id": begun, "state": "cancelling", "changed": False}
    assert act(acme, waiting, "abandon").json() == {"id": waiting, "state": "cancelled", "changed": True}
    api.move(begun, "succeeded")
    is_problem(act(acme, begun, "abandon"), 409, "not_cancellable")


def test_a_retry_from_scratch_forgets_the_session(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    api.move(job, "failed", session='{"handle": "s"}')
    assert act(acme, job, "retry", {"from": "scratch", "reason": "a bad session"}).json() == {
        "id": job, "state": "queued",
    }  # fmt: skip
    retried, left = acme.get(f"/v1/jobs/{job}/events").json()["items"][-2:]
    assert retried["cause"] == {"force": False, "fresh": True, "from": "scratch", "reason": "a bad session"}
    assert left["kind"] == "session_left_open"
    act(acme, job, "pause")
    is_problem(act(acme, job, "retry", {"from": "scratch"}), 409, "not_retryable")
    assert act(acme, job, "retry", {"from": "missing"}).status_code == 200


@pytest.mark.parametrize("action", ACTIONS)
def test_reason_and_person_are_in_the_history(api: Api, acme: httpx.Client, action: str) -> None:
    job = enqueue(acme, "a")
    if action == "retry":
        api.move(job, "failed")
    if action == "resume":
        act(acme, job, "pause")
    api.sql("UPDATE job SET not_before = now() + interval '1 hour' WHERE finished_at IS NULL")
    reason = "der Kunde wartet: 客户在等"
    answer = act(acme, job, action, {"reason": reason}, **{"Sliceway-Person": "ann@acme.example"})
    assert answer.status_code == 200, answer.text
    causes = [event["cause"] or {} for event in acme.get(f"/v1/jobs/{job}/events").json()["items"]]
    assert {"reason": reason, "person": "ann@acme.example"}.items() <= next(
        cause for cause in reversed(causes) if cause
    ).items()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("content", "media_type", "refusal"),
    [
        (b"{", "application/json", (400, "bad_json")),
        (b"[]", "application/json", (422, "invalid")),
        (b'{"reason": "a\\nb", "priority": 1}', "application/json", (422, "invalid")),
        (b'{"reason": "", "priority": 1}', "application/json", (422, "invalid")),
        (b'{"reason": 17, "priority": 1}', "application/json", (422, "invalid")),
        (b'{"reason": "%s", "priority": 1}' % (b"a" * 501), "application/json", (422, "invalid")),
        (b'{"reason": "a", "priority": 1, "x": 1}', "application/json", (422, "unknown_field")),
        (b'{"priority": 10}', "application/json", (422, None)),
        (b"{}", "text/plain", (415, "unsupported_media_type")),
        (b'{"reason": "%s"}' % (b"a" * 20_000), "application/json", (413, "too_large")),
    ],
)
def test_a_wrong_body_changes_nothing(
    acme: httpx.Client, action: str, content: bytes, media_type: str, refusal: tuple[int, str | None]
) -> None:
    job = enqueue(acme, "a")
    before = acme.get(f"/v1/jobs/{job}").json()
    answer = acme.post(f"/v1/jobs/{job}/{action}", content=content, headers={"Content-Type": media_type})
    status, code = refusal
    is_problem(answer, status, code or ("invalid" if action == "priority" else "unknown_field"))
    assert acme.get(f"/v1/jobs/{job}").json() == before


@pytest.mark.parametrize("person", ["", "a" * 201, "h\xf6r"])
def test_a_person_that_is_not_printable_is_refused(acme: httpx.Client, person: str) -> None:
    job = enqueue(acme, "a")
    answer = acme.post(f"/v1/jobs/{job}/pause", headers={b"Sliceway-Person": person.encode("latin-1")})
    is_problem(answer, 422, "invalid")


@pytest.mark.parametrize("action", ACTIONS)
def test_only_the_owner_and_an_administrator_may_act(api: Api, acme: httpx.Client, action: str) -> None:
    """An administrator acts on the tenant's own job: the same id, under the same idempotency key."""
    body, headers = job_body(), {"Idempotency-Key": "order-17"}
    job = acme.post("/v1/jobs", json=body, headers=headers).json()["id"]
    is_problem(act(api.client("umbrella"), job, action), 404, "not_found")
    is_problem(act(api.client(scopes="submit read"), job, action), 403, "forbidden")
    is_problem(act(api.bare(), job, action), 401, "unauthenticated")
    is_problem(act(acme, str(uuid4()), action), 404, "not_found")
    assert api.sql("SELECT count(*) AS n FROM event WHERE kind <> 'enqueued'") == [{"n": 0}]
    admin = api.client("umbrella", "admin")
    assert act(admin, job, action).json()["id"] == job
    again = acme.post("/v1/jobs", json=body, headers=headers)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (job, "true")
    assert {row["tenant"] for row in api.sql("SELECT tenant FROM job")} == {"acme"}


@pytest.mark.parametrize("action", ACTIONS)
def test_each_is_described_with_an_optional_body(api: Api, action: str) -> None:
    described = api.bare().get("/openapi.json").json()["paths"][f"/v1/jobs/{{job_id}}/{action}"]["post"]
    assert described["requestBody"]["required"] is (action == "priority")
    assert [each["name"] for each in described["parameters"] if each["in"] == "header"] == ["Sliceway-Person"]


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("action", ACTIONS)
def test_no_state_is_a_fault(api: Api, acme: httpx.Client, action: str, state: str) -> None:
    job = enqueue(acme, "a")
    api.move(job, state, started_at="now()")
    first, second = act(acme, job, action), act(acme, job, action)
    assert {first.status_code, second.status_code} <= {200, 409}
    assert re.match("not_|key_", first.json().get("code", "not_"))
    assert second.json().get("changed", False) is False
