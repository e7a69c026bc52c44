"""API keys: scopes, revocation, and what the database keeps of them."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from starlette.requests import Request

from api.auth import submitter
from worker.db.pool import conninfo
from worker.errors import NotFound, Refused
from worker.jobs.api_keys import (
    FRESH_FOR_S,
    NOTED_EVERY_S,
    RENEW_AFTER_S,
    ApiKey,
    KeyRing,
    Scope,
    create_key,
    find_key,
    list_keys,
    revoke_key,
)

if TYPE_CHECKING:
    import httpx

JOB = "01890000-0000-7000-8000-000000000000"
ROUTES = [
    ("POST", "/v1/jobs", "submit"),
    ("POST", "/v1/jobs/batch", "submit"),
    ("GET", "/v1/jobs", "read"),
    ("GET", f"/v1/jobs/{JOB}", "read"),
    ("GET", f"/v1/jobs/{JOB}/slices", "read"),
    ("GET", f"/v1/jobs/{JOB}/events", "read"),
    ("POST", f"/v1/jobs/{JOB}/retry", "operate"),
    ("POST", f"/v1/jobs/{JOB}/cancel", "operate"),
    ("POST", f"/v1/jobs/{JOB}/abandon", "operate"),
    ("POST", f"/v1/jobs/{JOB}/pause", "operate"),
    ("POST", f"/v1/jobs/{JOB}/resume", "operate"),
    ("POST", f"/v1/jobs/{JOB}/priority", "operate"),
    ("POST", f"/v1/jobs/{JOB}/start", "operate"),
    ("GET", "/v1/audit", "read"),
    ("GET", "/v1/holds", "read"),
    ("POST", "/v1/tenants/acme/pause", "operate"),
    ("POST", "/v1/tenants/acme/resume", "operate"),
]


def test_every_route_requires_its_scope_or_admin(api: Any) -> None:
    clients = {scope: api.client(scopes=scope) for scope in ("submit", "read", "operate", "admin")}
    for method, path, needed in ROUTES:
        for scope, client in clients.items():
            answer = client.request(method, path)
            if scope in {needed, "admin"}:
                assert answer.status_code not in {401, 403}, (path, scope)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (path, scope)
                assert needed in answer.json()["advice"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer slw_unknown", "Basic YTpi", "slw_x", "Bearer \xff"])
def test_without_a_valid_key_every_route_is_refused(api: Any, header: str | None) -> None:
    client = api.bare()
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for method, path, _ in ROUTES:
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_health_and_the_description_need_no_key(api: Any) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert api.bare().get(path).status_code == 200


def test_a_revoked_key_is_soon_refused(api: Any, acme: httpx.Client) -> None:
    assert acme.get("/v1/jobs").status_code == 200
    with api.database.transaction() as tx:
        [key] = list_keys(tx, "acme")
        assert revoke_key(tx, key.id).revoked_at == revoke_key(tx, key.id).revoked_at
    pause = threading.Event()
    for _ in range(100):
        if acme.get("/v1/jobs").status_code == 401:
            return
        pause.wait(0.05)
    raise AssertionError("the key was never refused")


def key_ring(api: Any) -> tuple[KeyRing, list[float], ApiKey, str]:
    """A key ring with a clock that the test sets, a key, and its text."""
    now = [0.0]
    with api.database.transaction() as tx:
        key, text = create_key(tx, "acme", [Scope.SUBMIT])
    return KeyRing(api.database, clock=lambda: now[0]), now, key, text


def test_a_key_is_remembered_for_a_moment_and_not_longer(api: Any) -> None:
    ring, now, key, text = key_ring(api)
    assert ring.remembered(text) is None
    assert ring.find(text) == ring.remembered(text) == key
    now[0] = FRESH_FOR_S
    assert ring.remembered(text) is None


def test_a_key_in_use_is_renewed_before_it_expires_from_the_ring(api: Any) -> None:
    ring, now, key, text = key_ring(api)
    ring.find(text)
    assert not ring.is_due(text)
    now[0] = RENEW_AFTER_S
    assert [ring.is_due(text) for _ in range(2)] == [True, False]
    ring.renew(text)
    now[0] = FRESH_FOR_S
    assert ring.remembered(text) == key
    assert ring.is_due(text)
    with api.database.transaction() as tx:
        revoke_key(tx, key.id)
    ring.renew(text)
    assert ring.remembered(text) is None


def test_no_request_waits_for_the_renewal_of_a_key(api: Any) -> None:
    ring, now, key, text = key_ring(api)
    ring.find(text)
    now[0] = RENEW_AFTER_S
    app = SimpleNamespace(state=SimpleNamespace(sliceway=SimpleNamespace(keys=ring)))
    request = Request({"type": "http", "app": app, "headers": [(b"authorization", f"Bearer {text}".encode())]})

    async def authenticate() -> None:
        with psycopg.connect(conninfo(api.settings.database_url)) as other:
            other.execute("LOCK TABLE api_key")
            assert await asyncio.wait_for(submitter(request), 30) == key

    asyncio.run(authenticate())  # returns when the renewal is done
    now[0] = FRESH_FOR_S
    assert ring.remembered(text) == key


def test_the_use_of_a_key_is_noted_once_a_minute(api: Any) -> None:
    ring, now, key, text = key_ring(api)

    def noted() -> Any:
        return api.sql("SELECT last_used_at AS at FROM api_key WHERE id = %(key)s", key=key.id)[0]["at"]

    ring.note_use(text)
    assert noted() is None  # it is not known yet
    ring.find(text)
    assert noted() is None  # a request waits for this look-up, and for no other statement
    ring.note_use(text)
    first = noted()
    assert first is not None
    api.sql("UPDATE api_key SET last_used_at = last_used_at - interval '2 min'")
    ring.note_use(text)
    assert noted() < first
    now[0] = NOTED_EVERY_S
    ring.find(text)
    ring.renew(text)
    assert noted() >= first
    api.sql("UPDATE api_key SET last_used_at = now() - interval '50 s'")  # by another process
    before = noted()
    now[0] = 2 * NOTED_EVERY_S
    ring.find(text)
    ring.note_use(text)
    assert noted() == before


def test_no_request_waits_until_its_use_is_noted(api: Any) -> None:
    """Not even the first one of a key: the row is locked while it is answered."""
    with api.database.transaction() as tx:
        key, text = create_key(tx, "acme", [Scope.READ])
    client = api.bare(Authorization=f"Bearer {text}")
    with psycopg.connect(conninfo(api.settings.database_url)) as other:
        other.execute("SELECT FROM api_key WHERE id = %s FOR UPDATE", [key.id])
        for _ in range(3):
            assert client.get("/v1/jobs").status_code == 200
        assert api.sql("SELECT last_used_at AS at FROM api_key")[0]["at"] is None
    until_s = time.monotonic() + 120
    while api.sql("SELECT last_used_at AS at FROM api_key")[0]["at"] is None:
        assert time.monotonic() < until_s


def test_the_database_has_no_usable_key(api: Any) -> None:
    with api.database.transaction() as tx:
        key, text = create_key(tx, "acme", [Scope.SUBMIT, Scope.READ, Scope.READ], name="web backend")
        assert find_key(tx, text) == key
        assert find_key(tx, text[:-1]) is None
        [kept] = list_keys(tx)
    assert (kept.name, kept.tenant, set(kept.scopes)) == ("web backend", "acme", {Scope.SUBMIT, Scope.READ})
    [row] = api.sql("SELECT * FROM api_key")
    assert text.removeprefix("slw_") not in repr(row)
    assert len(row["digest"]) == 32


@pytest.mark.parametrize(
    ("tenant", "scopes", "name", "code"),
    [
        ("*", [Scope.READ], None, "bad_tenant"),
        ("", [Scope.READ], None, "bad_tenant"),
        ("a b", [Scope.READ], None, "bad_tenant"),
        ("acme", [], None, "bad_scopes"),
        ("acme", [Scope.READ], "a\nb", "bad_key_name"),
    ],
)
def test_an_invalid_key_is_not_created(api: Any, tenant: str, scopes: list[Scope], name: str | None, code: str) -> None:
    with api.database.transaction() as tx, pytest.raises(Refused) as refused:
        create_key(tx, tenant, scopes, name)
    assert refused.value.code == code
    assert api.count("api_key") == 0


def test_revoking_an_unknown_key_is_an_error(api: Any) -> None:
    with api.database.transaction() as tx, pytest.raises(NotFound):
        revoke_key(tx, uuid4())
