"""Sentry, set up as docs/operating.md says: tasks and requests are transactions, and a job's failure is an issue."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.api import api_client, api_process, create_api_key
from tests.support.environ import importing
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.manual import snippet
from tests.support.sentry import sentry_server
from tests.support.store import SECRET_KEY, SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.installation import Installation
    from tests.support.sentry import Sentry

TASKS = {"sliceway.init", "sliceway.slice", "sliceway.finish"}


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with sentry_server() as made:
        yield made


@pytest.fixture
def settings(sentry: Sentry, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "ops_sentry.py").write_text(snippet("ops_sentry.py"))
    return {"SENTRY_DSN": sentry.dsn, **importing("ops_sentry", tmp_path)}


def test_each_task_is_a_transaction_and_none_of_a_good_upload_an_issue(
    site: Installation, sentry: Sentry, settings: dict[str, str]
) -> None:
    site.workers(2, **settings)
    site.enqueue(2 * MIB).succeeds()
    site.until(lambda: set(sentry.transactions()) >= TASKS, "a transaction of each task")
    site.until(lambda: len(sentry.items("transaction")) == 6, "a transaction of each slice")
    assert sentry.transactions() == dict.fromkeys(TASKS, "ok")
    assert {each["contexts"]["trace"]["op"] for each in sentry.items("transaction")} == {"queue.task.celery"}
    assert sentry.items("event") == []


def test_a_final_failure_is_an_issue_of_its_task_and_a_retry_is_none(
    site: Installation, sentry: Sentry, settings: dict[str, str]
) -> None:
    site.workers(2, **settings)
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, count=1, status=503, code=-196)
    site.enqueue(2 * MIB, key).succeeds()
    missing = site.submit(JobSpec("nowhere", "nowhere"), b"")
    assert missing.fails() == "source_gone"
    site.until(lambda: sentry.items("event"), "the issue")
    site.until(lambda: len(sentry.items("transaction")) >= 8, "a transaction of each task")
    [event] = sentry.items("event")
    [error] = event["exception"]["values"][-1:]
    assert (error["type"], error["mechanism"]["type"]) == ("SourceGone", "celery")
    assert "nowhere" in error["value"]
    assert sentry.tasks() == ["sliceway.init"]
    statuses = [each["contexts"]["trace"]["status"] for each in sentry.items("transaction")]
    assert (statuses.count("aborted"), statuses.count("internal_error")) == (1, 1)  # the retry, and the failure
    assert all(SECRET_KEY.encode() not in envelope for envelope in sentry.envelopes)


def test_requests_of_the_api_are_transactions_by_their_route(
    site: Installation, sentry: Sentry, settings: dict[str, str], tmp_path: Path
) -> None:
    site.workers(1)
    key = site.fresh_key()
    content = site.file(key, 1000)
    secret = create_api_key(site.database.url)
    with (
        api_process(site.environ | settings, tmp_path / "api.log") as url,
        closing(api_client(url, secret)) as client,
    ):
        answer = client.post("/v1/jobs", json=JobSpec(key, key).document).raise_for_status().json()
        site.note(Job(site, answer["id"], key, content, site.media / key)).succeeds()
        client.get(answer["urls"]["self"]).raise_for_status()
    wanted = {"/v1/jobs", "/v1/jobs/{job_id:uuid}"}
    site.until(lambda: set(sentry.transactions()) >= wanted, "a transaction of each request")
    assert sentry.items("event") == []
    assert all(secret.encode() not in envelope for envelope in sentry.envelopes)
