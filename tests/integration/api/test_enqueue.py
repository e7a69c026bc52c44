"""An accepted job is kept, once; a refused request leaves nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import enqueue, job_body

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx


def test_an_accepted_job_is_kept_as_it_was_requested(api: Any, acme: httpx.Client) -> None:
    requested = job_body(
        overwrite=True, verify="size", priority=0, attributes="a=1", labels={"order": "17"}, retry_for="90m"
    )
    answer = acme.post("/v1/jobs", json=requested)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["Location"] == accepted["urls"]["self"]
    [row] = api.sql("SELECT * FROM job")
    assert (str(row["id"]), row["tenant"], row["state"]) == (accepted["id"], "acme", "queued")
    assert (row["source"], row["store"], row["key"]) == (requested["source"], "main", "a")
    assert (row["overwrite"], row["verify"], row["priority"]) == (True, "size", 0)
    assert (row["attributes"], row["labels"], row["retry_for_s"]) == ("a=1", {"order": "17"}, 5400)
    [event] = api.sql("SELECT kind, actor FROM event")
    assert event["kind"] == "enqueued"
    assert event["actor"].startswith("key ")
    view = acme.get(answer.headers["Location"]).json()
    assert (view["id"], view["labels"], view["retry_for_s"]) == (accepted["id"], {"order": "17"}, 5400)


def send_fifty_at_once(client: httpx.Client, **headers: str) -> list[httpx.Response]:
    start = threading.Barrier(50)

    def send(_: int) -> httpx.Response:
        start.wait()
        return client.post("/v1/jobs", json=job_body(), headers=headers)

    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(send, range(50)))


def test_fifty_identical_requests_at_once_make_one_job(api: Any, acme: httpx.Client) -> None:
    answers = send_fifty_at_once(acme, **{"Idempotency-Key": "order-17"})
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert (api.count("job"), api.count("event")) == (1, 1)


def test_fifty_requests_for_one_target_without_a_key_make_one_job(api: Any, acme: httpx.Client) -> None:
    answers = send_fifty_at_once(acme)
    accepted = [answer for answer in answers if answer.status_code == 202]
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert (len(accepted), len(refused)) == (1, 49)
    assert {(problem["code"], problem["job_id"]) for problem in refused} == {("key_busy", accepted[0].json()["id"])}
    assert api.count("job") == 1


def test_a_repetition_gets_the_first_answer_whatever_became_of_the_job(api: Any, acme: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = acme.post("/v1/jobs", json=job_body(), headers=headers).json()
    api.move(first["id"], "succeeded")
    repeated = acme.post("/v1/jobs", json=job_body(priority=5, retry_for=None), headers=headers)
    assert (repeated.status_code, repeated.json()["id"], repeated.json()["state"]) == (202, first["id"], "succeeded")
    assert repeated.headers["Idempotent-Replayed"] == "true"


def test_an_idempotency_key_with_another_body_is_refused(acme: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = acme.post("/v1/jobs", json=job_body(), headers=headers).json()
    answer = acme.post("/v1/jobs", json=job_body(priority=1), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_mismatch")
    assert answer.json()["job_id"] == first["id"]


def test_tenants_may_use_the_same_idempotency_key(api: Any, acme: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = acme.post("/v1/jobs", json=job_body("a"), headers=headers)
    second = api.client("umbrella").post("/v1/jobs", json=job_body("b"), headers=headers)
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] != second.json()["id"]


def test_one_bucket_through_two_profiles_is_one_target(acme: httpx.Client) -> None:
    first = acme.post("/v1/jobs", json=job_body())
    answer = acme.post("/v1/jobs", json=job_body(store="same-bucket"))
    assert (answer.status_code, answer.json()["code"]) == (409, "key_busy")
    assert answer.json()["job_id"] == first.json()["id"]


def test_the_job_in_the_way_is_not_named_to_another_tenant(api: Any, acme: httpx.Client) -> None:
    first = acme.post("/v1/jobs", json=job_body()).json()
    answer = api.client("umbrella").post("/v1/jobs", json=job_body())
    assert (answer.status_code, answer.json()["code"]) == (409, "key_busy")
    assert first["id"] not in answer.text


def test_a_dry_run_reports_another_tenants_key_as_dry_run_sees_allows(api: Any, acme: httpx.Client) -> None:
    first = acme.post("/v1/jobs", json=job_body()).json()
    umbrella = api.client("umbrella")
    dry = {"dry_run": "true"}
    for store, own_status, status in (("main", 409, 409), ("discreet", 409, 200)):
        assert acme.post("/v1/jobs", json=job_body(store=store), params=dry).status_code == own_status
        answer = umbrella.post("/v1/jobs", json=job_body(store=store), params=dry)
        batch = umbrella.post("/v1/jobs/batch", json={"jobs": [job_body(store=store)]}, params=dry).json()
        assert answer.status_code == batch["results"][0]["status"] == status
        if status == 200:  # the same as for a free key
            free = umbrella.post("/v1/jobs", json=job_body("free", store=store), params=dry)
            assert free.json() == answer.json() | {"key": "free"}
        enqueued = umbrella.post("/v1/jobs", json=job_body(store=store))
        assert (enqueued.status_code, enqueued.json()["code"]) == (409, "key_busy")
        assert "acme" not in enqueued.text + answer.text
        assert first["id"] not in enqueued.text + answer.text
    assert api.count("job") == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_target_is_free_again_when_its_job_has_ended(api: Any, acme: httpx.Client, state: str) -> None:
    api.move(enqueue(acme), state)
    assert acme.post("/v1/jobs", json=job_body()).status_code == 202


@pytest.mark.parametrize("state", ["initializing", "uploading", "finishing", "cancelling"])
def test_a_target_is_reserved_while_its_job_may_write_to_it(api: Any, acme: httpx.Client, state: str) -> None:
    api.move(enqueue(acme), state)
    assert acme.post("/v1/jobs", json=job_body()).status_code == 409


def test_a_dry_run_returns_the_outcome_and_leaves_nothing(api: Any, acme: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    answer = acme.post("/v1/jobs?dry_run=true", json=job_body(), headers=headers)
    expected = {"dry_run": True, "tenant": "acme", "store": "main", "key": "a", "job_id": None}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert acme.post("/v1/jobs?dry_run=true", json=job_body(verify="slice")).json()["code"] == "bad_verify"
    assert api.count("job") == 0
    assert api.count("event") == 0
    first = acme.post("/v1/jobs", json=job_body(), headers=headers).json()
    assert acme.post("/v1/jobs?dry_run=true", json=job_body()).json()["code"] == "key_busy"
    assert acme.post("/v1/jobs?dry_run=true", json=job_body(), headers=headers).json()["job_id"] == first["id"]
    assert api.count("job") == 1


def test_a_tenant_has_no_more_live_jobs_than_its_quota(make_api: Callable[..., Any], database_url: str) -> None:
    api = make_api(database_url, SLICEWAY_MAX_LIVE_JOBS="3")
    acme, umbrella = api.client(), api.client("umbrella")
    headers = {"Idempotency-Key": "k"}
    first = acme.post("/v1/jobs", json=job_body("0"), headers=headers).json()
    for number in range(1, 3):
        assert acme.post("/v1/jobs", json=job_body(str(number))).status_code == 202
    answer = acme.post("/v1/jobs", json=job_body("3"))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert int(answer.headers["Retry-After"]) > 0
    assert umbrella.post("/v1/jobs", json=job_body("u")).status_code == 202
    repeated = acme.post("/v1/jobs", json=job_body("0"), headers=headers)
    assert (repeated.status_code, repeated.json()["id"]) == (202, first["id"])


def test_a_quota_has_room_again_when_jobs_have_ended(make_api: Callable[..., Any], database_url: str) -> None:
    api = make_api(database_url, SLICEWAY_MAX_LIVE_JOBS="1")
    acme = api.client()
    first = enqueue(acme, "0")
    assert acme.post("/v1/jobs", json=job_body("1")).status_code == 429
    api.move(first, "succeeded")
    until_accepted(acme, job_body("1"))


def until_accepted(client: httpx.Client, body: dict[str, Any]) -> None:
    """The quota counts once a second: retry until it has."""
    pause = threading.Event()
    for _ in range(100):
        if client.post("/v1/jobs", json=body).status_code == 202:
            return
        pause.wait(0.05)
    raise AssertionError("the quota never had room again")


def test_refused_requests_and_dry_runs_use_no_quota(make_api: Callable[..., Any], database_url: str) -> None:
    acme = make_api(database_url, SLICEWAY_MAX_LIVE_JOBS="2").client()
    assert acme.post("/v1/jobs", json=job_body("0")).status_code == 202
    for _ in range(5):
        assert acme.post("/v1/jobs", json=job_body("0")).status_code == 409
        assert acme.post("/v1/jobs?dry_run=true", json=job_body("1")).status_code == 200
    assert acme.post("/v1/jobs", json=job_body("1")).status_code == 202


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"store": "others"}, "unknown_store"),
        ({"store": "nowhere"}, "unknown_store"),
        ({"source": {"kind": "file", "root": "others", "path": "a"}}, "unknown_root"),
        ({"source": {"kind": "file", "root": "nowhere", "path": "a"}}, "unknown_root"),
    ],
)
def test_what_a_tenant_may_not_use_is_refused_as_unknown(
    api: Any, acme: httpx.Client, change: dict[str, Any], code: str
) -> None:
    answer = acme.post("/v1/jobs", json=job_body() | change)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "umbrella" not in answer.text
    assert api.count("job") == 0


def test_the_tenant_that_a_profile_names_may_use_it(api: Any) -> None:
    body = job_body(store="others") | {"source": {"kind": "file", "root": "others", "path": "a"}}
    assert api.client("umbrella").post("/v1/jobs", json=body).status_code == 202


def test_a_commit_that_fails_is_never_a_202(own_api: Any) -> None:
    acme = own_api.client()
    own_api.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    own_api.sql(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON job DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    assert acme.post("/v1/jobs", json=job_body()).status_code == 500
    assert acme.post("/v1/jobs/batch", json={"jobs": [job_body()]}).status_code == 500
    assert own_api.count("job") == 0


def test_enqueueing_needs_no_broker(api: Any, acme: httpx.Client) -> None:
    assert str(api.settings.broker_url) == "redis://127.0.0.1:1"  # nothing listens there
    assert acme.get("/readyz").json() == {"status": "ready", "note": None}
    assert acme.post("/v1/jobs", json=job_body()).status_code == 202
