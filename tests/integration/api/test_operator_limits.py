"""Limits of stores and tenants: who may, what is answered, and who sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import enqueue
from tests.integration.api.test_actions import is_problem

if TYPE_CHECKING:
    import httpx

    from tests.integration.api.conftest import Api

PATHS = {"store": "/v1/limits/stores/main", "tenant": "/v1/limits/tenants/acme"}
NAMES = {"store": "main", "tenant": "acme"}


@pytest.fixture
def admin(api: Api) -> httpx.Client:
    return api.client("ops", "admin")


@pytest.mark.parametrize("kind", PATHS)
def test_a_limit_is_set_listed_changed_and_removed(acme: httpx.Client, admin: httpx.Client, kind: str) -> None:
    enqueue(acme)
    path, what = PATHS[kind], {"kind": kind, "name": NAMES[kind]}
    body = {"max_in_flight": 4, "reason": "a busy link"}
    put = admin.put(path, json=body, headers={"Sliceway-Person": "ann"})
    assert (put.status_code, put.json()) == (200, what | {"max_in_flight": 4, "changed": True}), put.text
    assert admin.put(path, json=body | {"reason": "x"}).json() == what | {"max_in_flight": 4, "changed": False}
    for client in (admin, acme):
        [limit] = client.get("/v1/limits").json()["items"]
        assert (what | {"max_in_flight": 4}).items() <= limit.items()
        assert (limit["reason"], limit["person"], limit["key_name"]) == ("a busy link", "ann", "ops")
        assert limit["since"].endswith("Z")
    assert admin.put(path, json={"max_in_flight": 5}).json()["changed"] is True
    [limit] = acme.get("/v1/limits").json()["items"]
    assert (limit["max_in_flight"], limit["reason"], limit["person"]) == (5, None, None)
    assert admin.put(path, json={"max_in_flight": None}).json() == what | {"max_in_flight": None, "changed": True}
    assert admin.put(path, json={"max_in_flight": None}).json() == what | {"max_in_flight": None, "changed": False}
    assert acme.get("/v1/limits").json() == {"items": []}
    found = [(entry["action"], entry["what"], entry["changed"]) for entry in admin.get("/v1/audit").json()["items"]]
    assert found == [
        (f"{kind}.limit", {kind: NAMES[kind], "max_in_flight": most}, changed)
        for most, changed in ((None, 0), (None, 1), (5, 1), (4, 0), (4, 1))
    ]


@pytest.mark.parametrize("path", [*PATHS.values(), "/v1/limits/stores/none"])
@pytest.mark.parametrize("scopes", ["read", "operate", "submit"])
def test_only_an_administrator_may_set_one(api: Api, path: str, scopes: str) -> None:
    is_problem(api.client(scopes=scopes).put(path, json={"max_in_flight": 1}), 403, "forbidden")
    assert api.count("cap") == 0


@pytest.mark.parametrize(
    "body",
    [{}, {"max_in_flight": 0}, {"max_in_flight": -1}, {"max_in_flight": 1.5}, {"max_in_flight": "4"},
     {"max_in_flight": 2**31}, {"max_in_flight": True}, {"max_in_flight": 1, "bytes_per_s": 1}],
)  # fmt: skip
def test_what_is_no_limit_is_refused(admin: httpx.Client, api: Api, body: dict[str, Any]) -> None:
    assert admin.put(PATHS["store"], json=body).status_code == 422
    assert api.count("cap") == 0


def test_what_is_not_there_gets_none(admin: httpx.Client, api: Api) -> None:
    is_problem(admin.put("/v1/limits/stores/mian", json={"max_in_flight": 1}), 404, "not_found")
    is_problem(admin.put("/v1/limits/tenants/amce", json={"max_in_flight": 1}), 404, "not_found")
    assert api.count("cap") == 0
    gone = admin.put("/v1/limits/stores/left-the-file", json={"max_in_flight": None})
    assert gone.status_code == 200  # its limit may be there still


def test_a_tenant_sees_the_limits_that_concern_it(api: Api, acme: httpx.Client, admin: httpx.Client) -> None:
    umbrella = api.client("umbrella")
    for name in ("stores/main", "stores/others", "tenants/umbrella"):
        assert admin.put(f"/v1/limits/{name}", json={"max_in_flight": 1}).status_code == 200
    seen = [
        {(limit["kind"], limit["name"]) for limit in client.get("/v1/limits").json()["items"]}
        for client in (admin, umbrella, acme)
    ]
    every = {("store", "main"), ("store", "others"), ("tenant", "umbrella")}
    assert seen == [every, every, {("store", "main")}]
