"""Every refusal is a problem document that names the error, the field and the next step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import job_body

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

JOB = "01890000-0000-7000-8000-000000000000"


def source(**more: Any) -> dict[str, Any]:
    return {"source": {"kind": "file", "root": "media", "path": "a.mp4", **more}}


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:sliceway:problem:{code}"
    assert problem["title"]
    assert problem["instance"] == answer.request.url.path
    for line in (problem["detail"], problem["advice"]):
        assert line
        assert "\n" not in line
    return problem


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"colour": "blue"}, "unknown_field", "colour"),
        (source(colour="blue"), "unknown_field", "source.colour"),
        ({"priority": 10}, "invalid", "priority"),
        ({"priority": "5"}, "invalid", "priority"),
        ({"priority": True}, "invalid", "priority"),
        ({"overwrite": "yes"}, "invalid", "overwrite"),
        ({"key": "a\x00b"}, "invalid", "key"),
        ({"store": None}, "invalid", "store"),
        ({"attributes": "x" * 1025}, "invalid", "attributes"),
        ({"labels": {f"l{n}": "" for n in range(33)}}, "invalid", "labels"),
        ({"labels": {"a": "x" * 257}}, "invalid", "labels.a"),
        ({"labels": {"a": 1}}, "invalid", "labels.a"),
        ({"labels": {"a:b": "1"}}, "invalid", "labels.a:b.[key]"),
        ({"retry_for": "31d"}, "invalid", "retry_for"),
        ({"retry_for": "soon"}, "invalid", "retry_for"),
        ({"retry_for": 60}, "invalid", "retry_for"),
        ({"verify": "hard"}, "invalid", "verify"),
        (source(path=""), "invalid", "source.path"),
        (source(kind="ftp"), "invalid", "source.kind"),
    ],
)
def test_a_wrong_field_is_named(acme: httpx.Client, change: dict[str, Any], code: str, field: str) -> None:
    problem = is_problem(acme.post("/v1/jobs", json=job_body() | change), 422, code)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "/a"}, "bad_key"),
        ({"key": "a//b"}, "bad_key"),
        ({"key": "a/../b"}, "bad_key"),
        ({"key": "a\tb"}, "bad_key"),
        ({"key": "a?b"}, "bad_key"),
        ({"slice_size": 5}, "bad_slice_size"),
        ({"slice_size": -(2**70)}, "bad_slice_size"),
        ({"verify": "slice"}, "bad_verify"),
        ({"verify": "file", "slice_size": 3 * 1024 * 1024}, "bad_slice_size"),
        (source(path="/etc/passwd"), "bad_path"),
        (source(path="a/../../b"), "bad_path"),
        (source(path="a//b"), "bad_path"),
        (source(path="é" * 2049), "bad_path"),
        ({"callback_url": "http://x"}, "not_supported"),
        ({"source": {"kind": "url", "url": "http://x"}}, "not_supported"),
        ({"source": {"kind": "body", "body": "b"}}, "not_supported"),
    ],
)
def test_each_broken_rule_has_its_code(acme: httpx.Client, change: dict[str, Any], code: str) -> None:
    is_problem(acme.post("/v1/jobs", json=job_body() | change), 422, code)


@pytest.mark.parametrize("size", [None, 1024 * 1024])
def test_whole_file_verification_takes_the_slices_it_forces(acme: httpx.Client, size: int | None) -> None:
    assert acme.post("/v1/jobs", json=job_body(verify="file", slice_size=size)).status_code == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/bodies"),
        ("PATCH", "/v1/bodies/b"),
    ],
)
def test_a_planned_route_is_refused_as_not_supported(acme: httpx.Client, method: str, path: str) -> None:
    is_problem(acme.request(method, path), 422, "not_supported")


def test_a_live_stream_of_events_is_refused_as_not_supported(acme: httpx.Client) -> None:
    answer = acme.get(f"/v1/jobs/{JOB}/events", headers={"Accept": "text/event-stream"})
    is_problem(answer, 422, "not_supported")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("stat=failed", "unknown_field"),
        ("state=done", "invalid"),
        ("limit=0", "invalid"),
        ("limit=501", "invalid"),
        ("label=order", "invalid"),
        ("label=a:1&label=a:2", "invalid"),
        ("label=a:1&label=a%3D2", "invalid"),
        ("label=%3D1", "invalid"),
        ("created_from=2026-01-01T00:00:00", "invalid"),
        ("created_from=0.5", "invalid"),
        ("created_before=1767225600", "invalid"),
        ("created_before=2026-01-01", "invalid"),
        ("created_before=2026-01-01T00:00Z", "invalid"),
        ("created_before=2026-01-01T00:00:00+00:00", "invalid"),  # which is a space, not a plus
        ("limit=5.0", "invalid"),
        ("limit=1_0", "invalid"),
        ("limit=%2B5", "invalid"),
        ("limit=%205", "invalid"),
        ("limit=05", "invalid"),
        ("key_prefix=%00", "invalid"),
        ("cursor=x", "bad_cursor"),
        ("cursor=MTIz", "bad_cursor"),
        ("cursor=%C3%A9", "bad_cursor"),
    ],
)
def test_a_wrong_filter_is_refused_and_not_ignored(acme: httpx.Client, query: str, code: str) -> None:
    is_problem(acme.get(f"/v1/jobs?{query}"), 422, code)


@pytest.mark.parametrize(
    "path", [f"/v1/jobs/{JOB}?wait=61s", f"/v1/jobs/{JOB}?wait=soon", f"/v1/jobs/{JOB}/events?limit=0"]
)
def test_a_wrong_parameter_is_refused(acme: httpx.Client, path: str) -> None:
    is_problem(acme.get(path), 422, "invalid")


@pytest.mark.parametrize("flag", ["1", "yes", "on", "t", "True", ""])
def test_a_flag_is_true_or_false(api: Any, acme: httpx.Client, flag: str) -> None:
    is_problem(acme.post(f"/v1/jobs?dry_run={flag}", json=job_body()), 422, "invalid")
    is_problem(acme.post(f"/v1/jobs/{JOB}/retry?force={flag}"), 422, "invalid")
    assert api.count("job") == 0


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00Z", "2026-01-01t00:00:00.123456789%2B08:00"])
def test_a_time_is_as_in_rfc_3339(acme: httpx.Client, moment: str) -> None:
    assert acme.get(f"/v1/jobs?created_from={moment}&limit=5").status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs?key_prefix=%ff", "/healthz?%e2%82"])
def test_a_query_that_is_no_text_is_refused(acme: httpx.Client, path: str) -> None:
    is_problem(acme.get(path), 400, "bad_request")


@pytest.mark.parametrize("path", ["/%ff", "/a%0ab", "/v1/jobs/%00", "/é", "/v1/jobs/", "/healthz/", f"/v1/jobs/{JOB}/"])
def test_an_unknown_path_is_named_in_one_line(acme: httpx.Client, path: str) -> None:
    answer = acme.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["instance"].isascii()
    assert answer.json()["detail"].isprintable()


def test_a_trailing_slash_is_not_redirected(api: Any, acme: httpx.Client) -> None:
    is_problem(acme.post("/v1/jobs/", json=job_body()), 404, "not_found")
    assert api.count("job") == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST"}),
        ("DELETE", "/v1/jobs", {"GET", "POST"}),
        ("GET", "/v1/jobs/batch", {"POST"}),
        ("POST", f"/v1/jobs/{JOB}", {"GET"}),
        ("GET", f"/v1/jobs/{JOB}/retry", {"POST"}),
        ("OPTIONS", "/healthz", {"GET"}),
        ("PROPFIND", "/v1/jobs", {"GET", "POST"}),
    ],
)
def test_every_method_of_a_path_is_allowed(acme: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    answer = acme.request(method, path)
    assert set(answer.headers["Allow"].split(", ")) == allowed
    is_problem(answer, 405, "method_not_allowed")


def test_of_many_wrong_fields_twenty_are_listed(acme: httpx.Client) -> None:
    problem = is_problem(
        acme.post("/v1/jobs", json=job_body(**{f"colour-{n}": 1 for n in range(50)})), 422, "unknown_field"
    )
    assert [error["field"] for error in problem["errors"]] == [f"colour-{n}" for n in range(20)]
    assert problem["errors_omitted"] == 30
    query = "&".join(f"colour-{n}=1" for n in range(50))
    problem = is_problem(acme.get(f"/v1/jobs?{query}"), 422, "unknown_field")
    assert (len(problem["errors"]), problem["errors_omitted"]) == (20, 30)


def test_the_name_of_a_field_is_one_short_line(acme: httpx.Client) -> None:
    problem = is_problem(acme.post("/v1/jobs", json=job_body(**{"colour\n" + "x" * 9999: 1})), 422, "unknown_field")
    [error] = problem["errors"]
    assert error["field"].isprintable()
    assert len(error["field"]) <= 110


def test_a_misspelt_dry_run_does_not_enqueue(api: Any, acme: httpx.Client) -> None:
    is_problem(acme.post("/v1/jobs?dryrun=true", json=job_body()), 422, "unknown_field")
    assert api.count("job") == 0


@pytest.mark.parametrize("key", ["", "k" * 256, "a b"])
def test_a_wrong_idempotency_key_is_refused(acme: httpx.Client, key: str) -> None:
    is_problem(acme.post("/v1/jobs", json=job_body(), headers={"Idempotency-Key": key}), 422, "invalid")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"key": NaN}', b"[" * 50_000, b'{"key": "\\ud800"}'])
def test_what_is_no_json_is_refused(acme: httpx.Client, body: bytes) -> None:
    for path in ("/v1/jobs", "/v1/jobs/batch"):
        answer = acme.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in {400, 422}
        is_problem(answer, answer.status_code, "bad_json" if answer.status_code == 400 else "invalid")


def test_another_media_type_is_refused(acme: httpx.Client) -> None:
    is_problem(acme.post("/v1/jobs", data={"a": "b"}), 415, "unsupported_media_type")


@pytest.mark.parametrize(("path", "most"), [("/v1/jobs", 1024 * 1024), ("/v1/jobs/batch", 8 * 1024 * 1024)])
def test_a_body_is_bounded_before_it_is_parsed(acme: httpx.Client, path: str, most: int) -> None:
    headers = {"Content-Type": "application/json"}
    assert acme.post(path, content=b" " * most, headers=headers).status_code == 400
    is_problem(acme.post(path, content=b" " * (most + 1), headers=headers), 413, "too_large")
    pieces = (b" " * 65536 for _ in range(2 * most // 65536))
    is_problem(acme.post(path, content=pieces, headers=headers), 413, "too_large")


def test_unknown_paths_and_methods_have_their_documents(acme: httpx.Client) -> None:
    is_problem(acme.get("/v2/jobs"), 404, "not_found")
    is_problem(acme.get(f"/v1/jobs/{JOB}"), 404, "not_found")
    is_problem(acme.get("/v1/jobs/17"), 404, "not_found")
    is_problem(acme.get("/v1/jobs/batch"), 405, "method_not_allowed")
    answer = acme.put("/v1/jobs")
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


def test_an_internal_error_names_an_incident_and_keeps_the_connection(own_api: Any) -> None:
    acme = own_api.client()
    own_api.sql("ALTER TABLE event RENAME TO elsewhere")
    problem = is_problem(acme.post("/v1/jobs", json=job_body()), 500, "internal")
    assert problem["incident"]
    assert "elsewhere" not in str(problem)
    assert "Traceback" not in str(problem)
    own_api.sql("ALTER TABLE elsewhere RENAME TO event")
    assert acme.post("/v1/jobs", json=job_body()).status_code == 202


def test_without_a_database_the_api_is_live_but_not_ready(make_api: Callable[..., Any]) -> None:
    api = make_api("postgresql+psycopg://sliceway:fake-secret@127.0.0.1:1/sliceway")
    client = api.bare(Authorization="Bearer slw_fake-secret")
    assert client.get("/healthz").status_code == 200
    for answer in (client.get("/readyz"), client.post("/v1/jobs", json=job_body()), client.get("/v1/jobs")):
        is_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "fake-secret" not in answer.text


def test_a_database_without_tables_is_not_ready(make_api: Callable[..., Any], empty_database_url: str) -> None:
    is_problem(make_api(empty_database_url).bare().get("/readyz"), 503, "not_migrated")


def test_a_database_newer_than_the_release_is_ready(own_api: Any) -> None:
    acme = own_api.client()
    own_api.sql("UPDATE alembic_version SET version_num = 'later'")
    assert acme.get("/readyz").status_code == 200


def test_an_outage_that_has_ended_fails_no_request(own_api: Any) -> None:
    acme = own_api.client()
    with ThreadPoolExecutor(8) as pool:  # opens several connections of the pool
        assert {answer.status_code for answer in pool.map(lambda _: acme.get("/v1/jobs"), range(40))} == {200}
    own_api.sql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'sliceway api' AND datname = current_database()"
    )
    assert [acme.get("/v1/jobs").status_code for _ in range(10)] == [200] * 10
