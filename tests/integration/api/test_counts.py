"""Counts of jobs, and the filters that counts and lists share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import enqueue
from worker.jobs import counts as module
from worker.jobs import queries

if TYPE_CHECKING:
    import httpx

GONE = {"code": "source_gone", "message": "m", "advice": "a", "at": "2026-01-01T00:00:00Z"}


def counts(client: httpx.Client, **query: Any) -> dict[str | None, int]:
    answer = client.get("/v1/jobs/counts", params=query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    groups = {group["value"]: group["count"] for group in found["groups"]}
    assert found["total"] == sum(groups.values())
    assert (found["approximate"], found["groups_omitted"]) == (False, 0)
    return groups


def keys(client: httpx.Client, **query: Any) -> list[str]:
    answer = client.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["key"] for job in answer.json()["items"]]


def failed(api: Any, client: httpx.Client, key: str, error: dict[str, str] = GONE, **fields: Any) -> str:
    """Make a job that has failed, as this release writes it."""
    job = enqueue(client, key, **fields)
    api.move(job, "failed", error=json.dumps(error), failure_code=error["code"])
    return job


@pytest.fixture
def some(api: Any, acme: httpx.Client) -> list[str]:
    """Jobs of two tenants, in several states and stores, with and without errors and labels."""
    other = {**GONE, "code": "object_exists"}
    return [
        failed(api, acme, "a", labels={"order": "17", "kind": "x"}),
        failed(api, acme, "b", other, labels={"order": "17"}, store="same-bucket"),
        enqueue(acme, "c", labels={"order": "18"}),
        enqueue(acme, "d"),
        failed(api, api.client("umbrella"), "e"),
    ]


@pytest.mark.usefixtures("some")
def test_jobs_are_counted_in_groups(acme: httpx.Client) -> None:
    assert counts(acme) == counts(acme, group_by="state") == {"failed": 2, "queued": 2}
    assert counts(acme, group_by="store") == {"main": 3, "same-bucket": 1}
    assert counts(acme, group_by="error_code") == {"source_gone": 1, "object_exists": 1, None: 2}
    assert counts(acme, group_by="label.order") == {"17": 2, "18": 1, None: 1}
    assert counts(acme, group_by="label.none") == {None: 4}
    assert counts(acme, group_by="state", exact="true") == {"failed": 2, "queued": 2}


@pytest.mark.usefixtures("some")
def test_a_tenant_counts_its_own_jobs_and_an_admin_all(api: Any, acme: httpx.Client) -> None:
    admin = api.client("ops", "admin")
    assert counts(acme, group_by="tenant") == counts(acme, group_by="tenant", tenant="acme") == {"acme": 4}
    assert acme.get("/v1/jobs/counts", params={"tenant": "umbrella"}).status_code == 403
    assert api.client(scopes="submit").get("/v1/jobs/counts").status_code == 403
    assert counts(admin, group_by="tenant") == {"acme": 4, "umbrella": 1}
    assert counts(admin, group_by="tenant", error_code="source_gone") == {"acme": 1, "umbrella": 1}
    assert counts(admin, group_by="state", tenant="umbrella") == {"failed": 1}


FILTERS: list[dict[str, Any]] = [
    {},
    {"state": "failed"},
    {"state": ["failed", "queued"]},
    {"state": ["queued", "uploading"]},
    {"state": ["cancelled"]},
    {"store": "main"},
    {"store": "nowhere"},
    {"error_code": "source_gone"},
    {"error_code": "object_exists"},
    {"error_code": "none"},
    {"error_code": "source_gone", "state": "queued"},
    {"error_code": "source_gone", "state": "cancelled"},
    {"label.order": "17"},
    {"label.order": "17", "label.kind": "x"},
    {"label": "order=18"},
    {"key_prefix": "a"},
    {"key_prefix": "none"},
    {"since": "1h"},
    {"since": "0s"},
    {"since": "2026-01-01T00:00:00Z"},
    {"older_than": "0s"},
    {"older_than": "1h"},
    {"since": "3650d", "older_than": "3650d"},
    {"state": "failed", "store": "main", "label.order": "17", "error_code": "source_gone", "since": "1h"},
]


@pytest.mark.parametrize("query", FILTERS, ids=str)
@pytest.mark.parametrize("timeout_ms", [0, 1], ids=["in order", "through the indexes"])
@pytest.mark.usefixtures("some")
def test_a_list_has_the_jobs_that_are_counted_in_either_order(
    acme: httpx.Client, monkeypatch: pytest.MonkeyPatch, query: dict[str, Any], timeout_ms: int
) -> None:
    if timeout_ms:  # the first statement of a list never has its time
        monkeypatch.setattr(queries, "_within", impatient(queries._within))
    else:
        monkeypatch.setattr(queries, "FIRST_TRY_MS", queries.PAGE_TIMEOUT_MS - 1)
    listed = keys(acme, **query)
    assert keys(acme, **query, order="oldest") == listed[::-1]
    for group_by in ("state", "error_code", "label.order"):
        assert sum(counts(acme, **query, group_by=group_by).values()) == len(listed)


def impatient(within: Any) -> Any:
    def first_fails(database: Any, statement: Any, timeout_ms: int) -> Any:
        if timeout_ms < queries.PAGE_TIMEOUT_MS:
            raise queries._TookTooLong
        return within(database, statement, timeout_ms)

    return first_fails


def test_a_first_statement_that_takes_too_long_is_stopped(
    api: Any, acme: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time limit is the server's: where it strikes, the page comes from the second statement all the same."""
    for key in ("a", "b", "c"):
        enqueue(acme, key, store="same-bucket" if key == "b" else "main")
    monkeypatch.setattr(queries, "FIRST_TRY_MS", 1)
    api.sql("CREATE FUNCTION slow(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN $1; END'")
    try:
        api.sql("ALTER TABLE job RENAME TO real_job")
        api.sql("CREATE VIEW job AS SELECT * FROM real_job WHERE slow(tenant) = tenant")
        assert keys(acme, store="main") == ["c", "a"]
    finally:
        api.sql("DROP VIEW job")
        api.sql("ALTER TABLE real_job RENAME TO job")
        api.sql("DROP FUNCTION slow")


def test_pages_go_on_in_either_order(acme: httpx.Client) -> None:
    expected = [f"{number:02}" for number in range(7)]
    for key in expected:
        enqueue(acme, key)
    for order, wanted in (("newest", expected[::-1]), ("oldest", expected)):
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 3, "order": order, "store": "main"}
        while True:
            answer = acme.get("/v1/jobs", params=query).json()
            seen += [job["key"] for job in answer["items"]]
            if answer["next_cursor"] is None:
                break
            query["cursor"] = answer["next_cursor"]
        assert seen == wanted


def test_a_failed_job_that_a_worker_of_0_1_wrote_is_found_by_its_code(api: Any, acme: httpx.Client) -> None:
    """Its row has no `failure_code`; nor does 0.1 take that off a row when it retries the job."""
    job = enqueue(acme, "a")
    api.move(job, "failed", error=json.dumps(GONE))
    assert counts(acme, group_by="error_code") == {"source_gone": 1}
    assert keys(acme, error_code="source_gone") == ["a"]
    assert counts(acme, error_code="source_gone") == {"failed": 1}
    api.move(job, "queued", error=None, failure_code="source_gone")
    assert counts(acme, group_by="error_code") == {None: 1}
    api.move(job, "succeeded")
    assert counts(acme, group_by="error_code") == {None: 1}
    assert counts(acme, error_code="source_gone") == {}
    assert keys(acme, error_code="source_gone") == []


def test_a_job_behind_a_breaker_counts_by_the_code_of_that(api: Any, acme: httpx.Client) -> None:
    enqueue(acme, "a")
    enqueue(acme, "b", store="same-bucket")
    failed(api, acme, "c")
    api.sql(
        "INSERT INTO breaker (store, error, probe_at) VALUES"
        """ ('main', '{"code": "store_unusable", "message": "m", "advice": "a"}', now())"""
    )
    assert counts(acme, group_by="error_code") == {"store_unusable": 1, "source_gone": 1, None: 1}
    assert keys(acme, error_code="store_unusable") == ["a"]
    assert counts(acme, error_code="store_unusable", group_by="state") == {"queued": 1}


def test_a_sample_is_counted_where_all_jobs_take_too_long(
    api: Any, acme: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.sql(
        "INSERT INTO job"
        " (id, tenant, state, step, priority, finished_at, source, store, key, target, overwrite, verify, retry_for_s)"
        " SELECT gen_random_uuid(), 'acme', 'failed', 'idle', 5, now(), '{}', 'store', n::text, n::text, false, 'auto',"
        " 60 FROM generate_series(1, 20000) n"
    )
    api.sql("ANALYZE job")
    monkeypatch.setattr(module, "EXACT_WITHIN_MS", 1)
    monkeypatch.setattr(module, "SAMPLE_PAGES", 200)
    found = acme.get("/v1/jobs/counts", params={"group_by": "label.none"}).json()
    assert found["approximate"]
    assert 10_000 < found["total"] < 40_000
    exact = acme.get("/v1/jobs/counts", params={"group_by": "label.none", "exact": "true"}).json()
    assert (exact["approximate"], exact["total"]) == (False, 20_000)
    enqueue(acme, "one")
    few = acme.get("/v1/jobs/counts", params={"group_by": "label.none", "state": "queued"}).json()
    assert few["total"] == 1, "of few jobs in a sample nothing follows: all are counted"
    assert not few["approximate"]


def test_a_thousand_groups_are_listed(api: Any, acme: httpx.Client) -> None:
    api.sql(
        "INSERT INTO job (id, tenant, state, step, priority, finished_at, source, store, key, target, overwrite,"
        " labels, verify, retry_for_s) SELECT gen_random_uuid(), 'acme', 'failed', 'idle', 5, now(), '{}', 'main',"
        " n::text, n::text, false, jsonb_build_object('order', (n %% 1200)::text), 'auto', 60"
        " FROM generate_series(1, 2000) n"
    )
    found = acme.get("/v1/jobs/counts", params={"group_by": "label.order", "exact": "true"}).json()
    assert (len(found["groups"]), found["groups_omitted"], found["total"]) == (1000, 200, 2000)
    assert [group["count"] for group in found["groups"]] == sorted(
        (group["count"] for group in found["groups"]), reverse=True
    )


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("group_by=colour", "invalid", "group_by: "),
        ("group_by=label.", "invalid", "group_by: "),
        ("exact=yes", "invalid", "exact: must be true or false"),
        ("groupby=state", "unknown_field", "groupby: is not known; the nearest is group_by"),
        ("stat=failed", "unknown_field", "stat: is not known; the nearest is state"),
        ("limit=5", "unknown_field", "limit: is not known"),
        ("older_than=soon", "invalid", "older_than: must be a number and s, m, h or d"),
    ],
)
def test_a_wrong_query_is_refused_in_one_line(acme: httpx.Client, query: str, code: str, says: str) -> None:
    problem = acme.get(f"/v1/jobs/counts?{query}").json()
    assert (problem["status"], problem["code"]) == (422, code)
    assert problem["detail"].startswith(says)
    assert "\n" not in problem["detail"]


def test_a_list_refuses_what_it_has_not(acme: httpx.Client) -> None:
    for query in ("order=age", "group_by=state", "older=1h", "store=a&store=b"):
        assert acme.get(f"/v1/jobs?{query}").status_code == 422
