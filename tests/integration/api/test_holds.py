"""Holds of stores, tenants and the queue: who may, what is answered, and who sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.api.job_requests import enqueue
from tests.integration.api.test_actions import is_problem

if TYPE_CHECKING:
    import httpx

    from tests.integration.api.conftest import Api

PATHS = {"store": "/v1/stores/main", "tenant": "/v1/tenants/acme", "queue": "/v1/queue"}
NAMES = {"store": "main", "tenant": "acme", "queue": ""}


@pytest.fixture
def admin(api: Api) -> httpx.Client:
    return api.client("ops", "admin")


@pytest.mark.parametrize("kind", PATHS)
def test_a_hold_is_set_listed_and_released(acme: httpx.Client, admin: httpx.Client, kind: str) -> None:
    enqueue(acme)
    what = {"kind": kind, "name": NAMES[kind]}
    paused = admin.post(f"{PATHS[kind]}/pause", json={"reason": "maintenance"}, headers={"Sliceway-Person": "ann"})
    assert (paused.status_code, paused.json()) == (200, what | {"paused": True, "changed": True}), paused.text
    again = admin.post(f"{PATHS[kind]}/pause", json={"reason": "another"})
    assert again.json() == what | {"paused": True, "changed": False}
    for client in (admin, acme):
        [hold] = client.get("/v1/holds").json()["items"]
        assert what.items() <= hold.items()
        assert (hold["reason"], hold["person"], hold["key_name"]) == ("maintenance", "ann", "ops")
        assert hold["since"].endswith("Z")
    assert admin.post(f"{PATHS[kind]}/resume").json() == what | {"paused": False, "changed": True}
    assert admin.post(f"{PATHS[kind]}/resume").json() == what | {"paused": False, "changed": False}
    assert acme.get("/v1/holds").json() == {"items": []}
    found = [(entry["action"], entry["what"], entry["changed"]) for entry in admin.get("/v1/audit").json()["items"]]
    named = {} if kind == "queue" else {kind: NAMES[kind]}
    assert found == [
        (f"{kind}.resume", named, 0), (f"{kind}.resume", named, 1), (f"{kind}.pause", named, 0),
        (f"{kind}.pause", named, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_stores_the_queue_and_other_tenants_need_an_administrator(api: Api, acme: httpx.Client, action: str) -> None:
    api.client("umbrella")
    for path in ("/v1/stores/main", "/v1/tenants/umbrella", "/v1/queue", "/v1/stores/none"):
        is_problem(acme.post(f"{path}/{action}"), 403, "forbidden")
    is_problem(api.client(scopes="read").post(f"/v1/tenants/acme/{action}"), 403, "forbidden")
    assert acme.post(f"/v1/tenants/acme/{action}").status_code == 200
    assert [row["name"] for row in api.sql("SELECT name FROM hold")] == (["acme"] if action == "pause" else [])


def test_what_is_not_there_is_not_held(admin: httpx.Client, api: Api) -> None:
    is_problem(admin.post("/v1/stores/mian/pause"), 404, "not_found")
    is_problem(admin.post("/v1/tenants/amce/pause"), 404, "not_found")
    is_problem(admin.post("/v1/stores/a%00b/pause"), 422, "invalid")
    assert api.count("hold") == 0
    assert admin.post("/v1/stores/left-the-file/resume").status_code == 200  # its hold may be there still


def test_a_tenant_sees_the_holds_that_concern_it(api: Api, acme: httpx.Client, admin: httpx.Client) -> None:
    umbrella = api.client("umbrella")
    for path in ("/v1/stores/main", "/v1/stores/others", "/v1/tenants/umbrella", "/v1/queue"):
        assert admin.post(f"{path}/pause").status_code == 200
    seen = [
        {(hold["kind"], hold["name"]) for hold in client.get("/v1/holds").json()["items"]}
        for client in (admin, umbrella, acme)
    ]
    every = {("queue", ""), ("store", "main"), ("store", "others"), ("tenant", "umbrella")}
    assert seen == [every, every, {("queue", ""), ("store", "main")}]


def test_jobs_are_accepted_under_a_hold_and_a_start_says_that_they_are_held(
    acme: httpx.Client, admin: httpx.Client
) -> None:
    for path in PATHS.values():
        assert admin.post(f"{path}/pause", json={"reason": "maintenance"}).status_code == 200
    job = enqueue(acme)
    holds = acme.post(f"/v1/jobs/{job}/start").json()["held_back"]
    assert {(hold["by"], hold["reason"]) for hold in holds} == {
        (f"{kind}_paused", "maintenance") for kind in PATHS
    }  # fmt: skip
