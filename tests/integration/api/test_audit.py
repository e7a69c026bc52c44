"""The audit: every action is in it, refused ones too, and a tenant sees what its own keys did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.integration.api.job_requests import enqueue
from worker.jobs import audit
from worker.jobs.api_keys import Scope, create_key
from worker.jobs.audit import Actor
from worker.tasks.settle import pause_revoked

if TYPE_CHECKING:
    import httpx

    from tests.integration.api.conftest import Api

ACTIONS = ("retry", "cancel", "abandon", "pause", "resume", "priority", "start")
PERSON = {"Sliceway-Person": "ann@acme.example"}


def entries(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_written_down(api: Api, acme: httpx.Client, action: str) -> None:
    job = enqueue(acme)
    if action == "retry":
        api.move(job, "failed")
    if action == "resume":
        api.sql("UPDATE job SET paused_at = now()")
    if action == "start":
        api.sql("UPDATE job SET not_before = now() + interval '1 hour'")
    body = {"reason": "the customer waits", **({"priority": 0} if action == "priority" else {})}
    assert acme.post(f"/v1/jobs/{job}/{action}", json=body, headers=PERSON).status_code == 200
    [entry] = entries(acme)
    [key] = api.sql("SELECT id, name FROM api_key WHERE tenant = 'acme'")
    expected = {
        "action": f"job.{action}", "reason": "the customer waits", "changed": 1, "refused": 0, "tenant": "acme",
        "person": "ann@acme.example", "key_id": str(key["id"]), "key_name": key["name"], "actor": f"key {key['id']}",
    }  # fmt: skip
    assert expected.items() <= entry.items()
    assert entry["what"] == {"jobs": [job], **({"priority": 0} if action == "priority" else {})}


def test_what_changed_nothing_or_was_refused_is_written_down_as_such(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    api.move(job, "succeeded")
    assert acme.post(f"/v1/jobs/{job}/cancel").status_code == 409
    assert acme.post(f"/v1/jobs/{job}/retry?force=true", json={"from": "scratch"}).status_code == 409
    assert acme.post(f"/v1/jobs/{job}/pause").status_code == 200
    unknown = str(uuid4())
    assert acme.post(f"/v1/jobs/{unknown}/start").status_code == 404
    found = [(entry["action"], entry["what"], entry["changed"], entry["refused"]) for entry in entries(acme)]
    assert found == [
        ("job.start", {"jobs": [unknown]}, 0, 1),
        ("job.pause", {"jobs": [job]}, 0, 0),
        ("job.retry", {"jobs": [job], "force": True, "scratch": True}, 0, 1),
        ("job.cancel", {"jobs": [job]}, 0, 1),
    ]


def test_a_request_that_is_no_action_is_not_written_down(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    assert acme.post(f"/v1/jobs/{job}/priority", json={"priority": 10}).status_code == 422
    assert api.client(scopes="read").post(f"/v1/jobs/{job}/cancel").status_code == 403
    assert entries(acme) == []


def test_a_tenant_sees_what_its_own_keys_did(api: Api, acme: httpx.Client) -> None:
    admin, umbrella = api.client("ops", "admin"), api.client("umbrella")
    job = enqueue(acme)
    acme.post(f"/v1/jobs/{job}/pause")
    admin.post(f"/v1/jobs/{job}/resume")
    with api.database.transaction() as tx:
        key, _ = create_key(tx, "umbrella", [Scope.READ])
        audit.record_key(tx, Actor("user root on a"), "create", key)
    assert [entry["action"] for entry in entries(acme)] == ["job.pause"]
    assert entries(umbrella) == []
    assert [entry["action"] for entry in entries(admin)] == ["key.create", "job.resume", "job.pause"]
    refused = api.client(scopes="submit operate").get("/v1/audit")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_the_audit_comes_in_pages(acme: httpx.Client) -> None:
    job = enqueue(acme)
    for _ in range(5):
        acme.post(f"/v1/jobs/{job}/pause")
    seen, cursor = [], None
    while True:
        page = acme.get("/v1/audit", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 5
    assert seen == sorted(seen, reverse=True)
    assert acme.get("/v1/audit", params={"cursor": "?"}).json()["code"] == "bad_cursor"


def test_an_entry_is_committed_with_its_action_or_not_at_all(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    api.sql("ALTER TABLE audit ADD CONSTRAINT none CHECK (action <> 'job.pause')")
    try:
        assert acme.post(f"/v1/jobs/{job}/pause").status_code == 500
        assert acme.get(f"/v1/jobs/{job}").json()["waiting"]["paused_at"] is None
    finally:
        api.sql("ALTER TABLE audit DROP CONSTRAINT none")


def test_a_revoke_in_flower_is_written_down_once(api: Api, acme: httpx.Client) -> None:
    job = enqueue(acme)
    for _ in range(2):  # every worker process sees the revoke
        with api.database.transaction() as tx:
            pause_revoked(tx, UUID(job))
    [entry] = entries(api.client("ops", "admin"))
    assert (entry["actor"], entry["action"], entry["what"]) == (
        "Celery's remote control", "job.pause", {"jobs": [job]},
    )  # fmt: skip
    assert (entry["key_id"], entry["person"], entry["changed"]) == (None, None, 1)
    assert "revoked in Flower" in entry["reason"]
