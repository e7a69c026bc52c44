"""A retry checks the lists of tenants again: for the job's tenant, also if another tenant's admin retries it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.api.conftest import STORES, Api
from tests.integration.api.job_requests import enqueue, job_body

if TYPE_CHECKING:
    from collections.abc import Callable

GONE = {"code": "source_gone", "message": "gone", "advice": "Put it back.", "at": "x"}
CHANGES = {
    "store": ("[stores.main]", '[stores.main]\ntenants = ["umbrella"]', "may not write to store 'main' any more"),
    "root": ("[roots.media]", '[roots.media]\ntenants = ["umbrella"]', "may not read from root 'media' any more"),
    "prefix": ("[stores.main]", '[stores.main]\nprefix = "{tenant}/"', "writes below 'acme/' in store 'main'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_retry_of_a_tenant_that_was_taken_off_a_list_is_refused(
    make_api: Callable[..., Api], database_url: str, change: str
) -> None:
    before = make_api(database_url)
    failed, paused, live, kept = (enqueue(before.client(), key) for key in ("a", "b", "c", "acme/d"))
    before.sql("UPDATE job SET store = 'same-bucket' WHERE id = %(id)s", id=kept)
    for job in (failed, kept):
        before.move(job, "failed", error=json.dumps(GONE))
    before.move(paused, "uploading", paused_at="now()")
    old, new, why = CHANGES[change]
    after = make_api(database_url, stores=STORES.replace(old, new))
    for client in (after.client(), after.client("umbrella", "admin")):
        for job in (failed, paused, live):
            answer = client.post(f"/v1/jobs/{job}/retry")
            assert (answer.status_code, answer.json()["code"]) == (409, "tenant_not_allowed")
            assert why in answer.json()["detail"]
    rows = {str(row["id"]): row for row in after.sql("SELECT id, state, paused_at, error FROM job")}
    assert (rows[failed]["state"], rows[failed]["error"], rows[live]["state"]) == ("failed", GONE, "queued")
    assert rows[paused]["paused_at"] is not None
    error = after.client().get(f"/v1/jobs/{live}").json()["error"]
    assert (error["code"], why in error["message"]) == ("tenant_not_allowed", True)
    others = after.client().post(f"/v1/jobs/{kept}/retry")
    assert others.status_code == (409 if change == "root" else 200)


def test_a_key_outside_the_prefix_is_refused_and_named(make_api: Callable[..., Api], database_url: str) -> None:
    stores = STORES.replace("[stores.main]", '[stores.main]\nprefix = "{tenant}/"')
    client = make_api(database_url, stores=stores).client()
    answer = client.post("/v1/jobs", json=job_body("umbrella/a"))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_key")
    assert "'acme/'" in answer.json()["detail"]
    assert answer.json()["advice"] == "Begin the key with 'acme/'."
    enqueue(client, "acme/a")
