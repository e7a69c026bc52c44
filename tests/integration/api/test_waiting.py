"""Views of jobs that wait for their store: each has the reason, also if no worker has recorded it for this job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.integration.api.conftest import STORES, Api
from tests.integration.api.job_requests import enqueue, job_body

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

MANY = 240
REFUSED = {"code": "store_unusable", "message": "the secret id does not exist", "advice": "Correct it.", "at": "x"}
BUSY = {"code": "store_unavailable", "message": "503", "advice": "Nothing.", "at": "x"}


def open_breaker(api: Api) -> None:
    api.sql(
        "INSERT INTO breaker (store, error, opened_at, probe_at)"
        " VALUES ('main', %(error)s, '2026-01-02T03:04:05Z', now())",
        error=json.dumps(REFUSED),
    )


def test_all_jobs_behind_a_breaker_carry_its_reason_and_lose_it_when_it_closes(api: Api, acme: httpx.Client) -> None:
    items = [job_body(f"{n}") for n in range(MANY)]
    acme.post("/v1/jobs/batch", json={"jobs": items}).raise_for_status()
    open_breaker(api)
    api.sql("UPDATE job SET error = %(error)s, failing_since = now() WHERE key < '11'", error=json.dumps(REFUSED))
    views = acme.get("/v1/jobs", params={"limit": 500}).json()["items"]
    assert len(views) == MANY
    assert [job["error"] for job in views] == [REFUSED | {"answer": None}] * MANY
    assert all(job["waiting"]["failing_since"] for job in views)
    one = acme.get(f"/v1/jobs/{views[0]['id']}").json()
    assert (one["error"]["code"], one["waiting"]["failing_since"]) == ("store_unusable", "2026-01-02T03:04:05Z")
    wanted = {"limit": 500, "error_code": "store_unusable"}
    assert len(acme.get("/v1/jobs", params=wanted).json()["items"]) == MANY

    api.sql("UPDATE job SET error = NULL, failing_since = NULL")  # as by the next success of each
    api.sql("DELETE FROM breaker")
    views = acme.get("/v1/jobs", params={"limit": 500}).json()["items"]
    assert [job["error"] for job in views] == [None] * MANY
    assert all(set(job["waiting"].values()) == {None} for job in views)  # they wait for their turn
    assert acme.get("/v1/jobs", params=wanted).json()["items"] == []


STATES = [
    (("queued", "pending", None), "store_unusable"),
    (("queued", "dispatched", None), "store_unusable"),
    (("uploading", "idle", "pending"), "store_unusable"),
    (("uploading", "idle", "dispatched"), "store_unusable"),
    (("finishing", "pending", None), "store_unusable"),
    (("cancelling", "pending", None), "store_unusable"),
    (("initializing", "running", None), "store_unavailable"),
    (("uploading", "idle", "sending"), "store_unavailable"),
    (("finishing", "running", None), "store_unavailable"),
    (("failed", "idle", None), "store_unavailable"),
    (("cancelled", "idle", None), "store_unavailable"),
]


@pytest.mark.parametrize(("status", "code"), STATES)
def test_jobs_that_wait_have_the_reason_and_jobs_under_way_or_ended_have_not(
    api: Api, acme: httpx.Client, status: tuple[str, str, str | None], code: str
) -> None:
    state, step, part = status
    job, other = enqueue(acme, "a"), enqueue(acme, "b")
    open_breaker(api)
    api.move(job, state, step=step, error=json.dumps(BUSY), worker=uuid4() if step == "running" else None)
    api.sql("UPDATE job SET store = 'same-bucket' WHERE id = %(id)s", id=other)
    if part is not None:
        api.sql(
            "INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token)"
            " VALUES (%(job)s, 0, 0, 1, %(part)s, 1)",
            job=job,
            part=part,
        )
    assert acme.get(f"/v1/jobs/{job}").json()["error"]["code"] == code
    assert acme.get(f"/v1/jobs/{other}").json()["error"] is None
    found = acme.get("/v1/jobs", params={"error_code": code}).json()["items"]
    assert [view["id"] for view in found] == [job]


@pytest.mark.parametrize("change", ["gone", "elsewhere"])
def test_jobs_whose_store_was_changed_in_the_stores_file_have_that_reason(
    make_api: Callable[..., Api], database_url: str, change: str
) -> None:
    before = make_api(database_url)
    job, kept, ended, sent = (enqueue(before.client(), key, store="same-bucket") for key in ("a", "b", "c", "d"))
    before.sql("UPDATE job SET store = 'main' WHERE id = %(id)s", id=kept)
    before.move(ended, "failed", error=json.dumps(BUSY))
    before.move(sent, "initializing", step="running")
    name, bucket = ("another", "media") if change == "gone" else ("same-bucket", "elsewhere")
    changed = STORES.replace("[stores.same-bucket]", f"[stores.{name}]").replace(
        'COS.example.com:443/"\nappid = "1250000000"\nbucket = "media"',
        f'COS.example.com:443/"\nappid = "1250000000"\nbucket = "{bucket}"',
    )
    after = make_api(database_url, stores=changed)
    client: Any = after.client()
    views = {view["id"]: view["error"] for view in client.get("/v1/jobs").json()["items"]}
    assert views[job]["code"] == "store_changed"
    assert "same-bucket" in views[job]["message"]
    assert "cancel the jobs" in views[job]["advice"]
    assert client.get(f"/v1/jobs/{job}").json()["error"] == views[job]
    assert (views[kept], views[ended]["code"], views[sent]) == (None, "store_unavailable", None)


def test_every_view_says_when_what_has_failed_is_tried_again(api: Api, acme: httpx.Client) -> None:
    queued, deferred, uploading, running, ended = (enqueue(acme, key) for key in "abcde")
    api.sql("UPDATE job SET not_before = '2126-01-02T03:04:05Z' WHERE id = %(id)s", id=deferred)
    api.move(uploading, "uploading", failing_since=datetime(2026, 1, 2, tzinfo=UTC))
    api.sql(
        "INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, not_before)"
        " SELECT %(job)s, n, n, 1, 'pending', 1, '2126-01-02T03:04:05Z'::timestamptz + n * interval '1 min'"
        " FROM generate_series(0, 2) AS n",
        job=uploading,
    )
    api.move(running, "initializing", step="running")
    api.move(ended, "failed")
    expected = {
        queued: (True, None), deferred: (True, "2126-01-02T03:04:05Z"), uploading: (True, "2126-01-02T03:04:05Z"),
        running: (False, None), ended: (False, None),
    }  # fmt: skip
    listed = {job["id"]: job for job in acme.get("/v1/jobs").json()["items"]}
    for job, wanted in expected.items():
        for view in (listed[job], acme.get(f"/v1/jobs/{job}").json()):
            assert (view["waiting"] is not None, view["next_attempt_at"]) == wanted
