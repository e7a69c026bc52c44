"""An action on all jobs that match a filter: counted, confirmed, watched and stopped through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.integration.api.job_requests import enqueue
from worker.maintenance.bulk import BulkActions

if TYPE_CHECKING:
    import httpx

    from tests.integration.api.conftest import Api

ACTIONS = "/v1/jobs/actions"


def ask(client: httpx.Client, action: str = "pause", query: str = "state=queued", **body: Any) -> httpx.Response:
    return client.post(ACTIONS, json={"action": action, "filter": query, **body})


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def carry_out(api: Api) -> None:
    """Do what the leader does."""
    with api.database.connection() as tx:
        BulkActions(api.settings).run(tx, lambda: True)


def paused(api: Api) -> set[str]:
    return {str(row["id"]) for row in api.sql("SELECT id FROM job WHERE paused_at IS NOT NULL")}


def test_a_dry_run_counts_and_shows_some_and_changes_nothing(api: Api, acme: httpx.Client) -> None:
    jobs = {enqueue(acme, f"k{number}") for number in range(12)}
    answer = ask(acme, query="state=queued&since=60m", dry_run=True)
    assert (answer.status_code, answer.json()["count"]) == (200, 12)
    assert answer.json()["filter"] == "since=1h&state=queued&tenant=acme"
    assert {job["id"] for job in answer.json()["sample"]} < jobs
    assert len(answer.json()["sample"]) == 10
    carry_out(api)
    assert (paused(api), api.count("bulk_action"), api.count("audit")) == (set(), 0, 0)


def test_what_is_confirmed_is_done_and_written_down(api: Api, acme: httpx.Client) -> None:
    jobs = {enqueue(acme, f"k{number}") for number in range(3)}
    answer = acme.post(
        ACTIONS,
        json={"action": "pause", "filter": "state=queued", "confirm": 3, "reason": "a fault"},
        headers={"Sliceway-Person": "mia"},
    )
    assert (answer.status_code, answer.json()["state"], answer.json()["total"]) == (202, "running", 3)
    later = enqueue(acme, "later")
    carry_out(api)
    assert paused(api) == jobs
    done = acme.get(f"{ACTIONS}/{answer.json()['id']}").json()
    assert (done["state"], done["done"], done["changed"], done["refused"]) == ("done", 3, 3, 0)
    assert done["finished_at"] is not None
    assert acme.get(ACTIONS).json() == {"items": [done], "next_cursor": None}
    event = acme.get(f"/v1/jobs/{min(jobs)}/events").json()["items"][-1]
    assert event["cause"] == {"reason": "a fault", "person": "mia", "bulk_action": done["id"]}
    audit = [(each["action"], each["changed"], each["person"]) for each in acme.get("/v1/audit").json()["items"]]
    assert audit == [("jobs.pause.done", 3, "mia"), ("jobs.pause", 0, "mia")]
    assert acme.get(f"/v1/jobs/{later}").json()["waiting"]["paused_at"] is None


def test_another_count_is_refused_with_the_count(api: Api, acme: httpx.Client) -> None:
    enqueue(acme, "a")
    answer = ask(acme, confirm=2)
    is_problem(answer, 409, "count_changed")
    assert answer.json()["count"] == 1
    assert api.count("bulk_action") == 0


@pytest.mark.parametrize("query", ["", "tenant=acme"])
def test_a_filter_that_matches_every_job_is_refused(acme: httpx.Client, query: str) -> None:
    is_problem(ask(acme, query=query, dry_run=True), 422, "filter_required")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid"),
        ({"dry_run": True, "confirm": 1}, "invalid"),
        ({"dry_run": True, "priority": 1}, "invalid"),
        ({"dry_run": True, "action": "priority"}, "invalid"),
        ({"dry_run": True, "from": "scratch"}, "invalid"),
        ({"dry_run": True, "action": "forget"}, "invalid"),
        ({"dry_run": True, "force": True}, "unknown_field"),
        ({"dry_run": True, "filter": "stat=failed"}, "unknown_field"),
        ({"dry_run": True, "filter": "state=lost"}, "invalid"),
        ({"confirm": -1}, "invalid"),
    ],
)
def test_a_wrong_request_is_refused(acme: httpx.Client, body: dict[str, Any], code: str) -> None:
    is_problem(acme.post(ACTIONS, json={"action": "pause", "filter": "state=queued", **body}), 422, code)


def test_a_tenant_reaches_and_sees_its_own_only(api: Api, acme: httpx.Client) -> None:
    umbrella, admin = api.client("umbrella"), api.client("ops", "admin")
    own, other = enqueue(acme, "a"), enqueue(umbrella, "b")
    is_problem(ask(acme, query="tenant=umbrella&state=queued", dry_run=True), 403, "forbidden")
    assert ask(acme, dry_run=True).json()["count"] == 1
    made = ask(acme, confirm=1).json()["id"]
    carry_out(api)
    assert paused(api) == {own}
    for client in (acme, admin):
        assert [each["id"] for each in client.get(ACTIONS).json()["items"]] == [made]
    assert umbrella.get(ACTIONS).json()["items"] == []
    is_problem(umbrella.get(f"{ACTIONS}/{made}"), 404, "not_found")
    is_problem(umbrella.post(f"{ACTIONS}/{made}/stop"), 404, "not_found")
    every = ask(admin, "resume", "state=queued", confirm=2).json()["id"]
    is_problem(acme.get(f"{ACTIONS}/{every}"), 404, "not_found")
    assert other not in paused(api)


def test_it_needs_the_scope_operate(api: Api) -> None:
    reader = api.client(scopes="read")
    is_problem(ask(reader, dry_run=True), 403, "forbidden")
    is_problem(reader.post(f"{ACTIONS}/{uuid4()}/stop"), 403, "forbidden")
    assert reader.get(ACTIONS).json()["items"] == []


def test_a_stopped_action_takes_no_more_jobs(api: Api, acme: httpx.Client) -> None:
    enqueue(acme, "a")
    made = ask(acme, confirm=1).json()["id"]
    stopped = acme.post(f"{ACTIONS}/{made}/stop", json={"reason": "a mistake"}).json()
    assert (stopped["state"], stopped["done"], stopped["finished_at"] is None) == ("stopped", 0, False)
    carry_out(api)
    assert paused(api) == set()
    assert acme.post(f"{ACTIONS}/{made}/stop").json() == stopped
    audit = [(each["action"], each["changed"], each["reason"]) for each in acme.get("/v1/audit").json()["items"]]
    assert audit == [("jobs.stop", 0, None), ("jobs.stop", 1, "a mistake"), ("jobs.pause", 0, None)]


def test_refusals_are_counted_with_examples(api: Api, acme: httpx.Client) -> None:
    jobs = [enqueue(acme, f"k{number}") for number in range(5)]
    for job in jobs:
        api.move(job, "failed")
    ask(acme, "cancel", "state=failed", confirm=5)
    carry_out(api)
    [view] = acme.get(ACTIONS).json()["items"]
    [refused] = view["refusals"]
    assert (view["done"], view["changed"], view["refused"], refused["code"]) == (5, 0, 5, "not_cancellable")
    assert [each["id"] for each in refused["examples"]] == jobs[:1:-1]
    assert "has already failed" in refused["examples"][0]["message"]


def test_of_several_jobs_for_one_target_the_newest_is_put_back(api: Api, acme: httpx.Client) -> None:
    jobs = []
    for _ in range(3):
        jobs.append(enqueue(acme, "same"))
        api.move(jobs[-1], "failed")
    ask(acme, "retry", "state=failed", confirm=3, **{"from": "scratch"})
    with api.database.connection() as tx:
        duty = BulkActions(api.settings)
        duty._jobs = 1  # each in a batch of its own
        duty.run(tx, lambda: True)
    assert [acme.get(f"/v1/jobs/{job}").json()["state"] for job in jobs] == ["failed", "failed", "queued"]
    [view] = acme.get(ACTIONS).json()["items"]
    assert (view["changed"], {each["code"] for each in view["refusals"]}) == (1, {"key_busy"})


def test_the_list_is_paged(acme: httpx.Client) -> None:
    made = [ask(acme, query=f"store=s{number}", confirm=0).json()["id"] for number in range(3)]
    first = acme.get(ACTIONS, params={"limit": 2}).json()
    second = acme.get(ACTIONS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for page in (first, second) for each in page["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_every_action_can_be_done(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme, "a")
    for action, more in (
        ("pause", {}), ("resume", {}), ("priority", {"priority": 1}), ("start", {}), ("abandon", {}), ("retry", {}),
        ("cancel", {}),
    ):  # fmt: skip
        assert ask(acme, action, "store=main", confirm=1, **more).status_code == 202
        carry_out(api)
    assert [each["state"] for each in acme.get(ACTIONS).json()["items"]] == ["done"] * 7
    kinds = [event["kind"] for event in acme.get(f"/v1/jobs/{job}/events").json()["items"]]
    assert {"paused", "resumed", "prioritised", "cancelled", "retried"} & set(kinds)
    view = acme.get(f"/v1/jobs/{job}").json()
    assert (view["state"], view["priority"]) == ("cancelled", 1)
