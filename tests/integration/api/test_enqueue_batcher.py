"""Group commit: concurrent requests share statements, and no request's outcome depends on another request."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from api.enqueue_batcher import EnqueueBatcher
from tests.integration.api.job_requests import job_body
from worker.db.pool import Database, conninfo
from worker.errors import Conflict
from worker.ids import new_id
from worker.jobs.api_keys import ApiKey, Scope, create_key
from worker.jobs.quota import Quota
from worker.jobs.submit import Accepted
from worker.jobs.transitions import NewJob
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

MANY = 24
_WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def test_requests_that_arrive_during_a_commit_share_the_next(
    api: Any, acme: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[httpx.Response] = []
    submitted: list[ApiKey] = []
    submit = api.enqueue_batcher.submit

    def counting(jobs: list[NewJob], key: ApiKey) -> Any:
        submitted.append(key)
        return submit(jobs, key)

    monkeypatch.setattr(api.enqueue_batcher, "submit", counting)

    def send(number: int) -> None:
        answers.append(acme.post("/v1/jobs", json=job_body(f"shared/{number}")))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(MANY)]
    with psycopg.connect(conninfo(api.settings.database_url)) as other:
        other.execute("LOCK TABLE job IN SHARE MODE")
        threads[0].start()
        assert wait_until(lambda: bool(api.sql(_WAITING)), timeout_s=30)
        for thread in threads[1:]:
            thread.start()
        assert wait_until(lambda: len(submitted) == MANY, timeout_s=30)
    for thread in threads:
        thread.join(120)
    assert [answer.status_code for answer in answers] == [202] * MANY
    statements = api.sql("SELECT DISTINCT xmin::text FROM job")  # the rows of one statement have the same xmin
    assert api.count("job") == MANY
    assert len(statements) <= MANY // 4


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application="tests")
    yield database
    database.close()


@pytest.fixture
def key(database: Database) -> ApiKey:
    with database.transaction() as tx:
        return create_key(tx, "acme", [Scope.SUBMIT])[0]


def job(target: str, **fields: Any) -> NewJob:
    fields_of_all = {
        "id": new_id(), "tenant": "acme", "priority": 5, "source": {"kind": "file", "root": "media", "path": "a"},
        "store": "main", "key": target, "target": target, "overwrite": False, "attributes": None, "labels": {},
        "verify": "auto", "slice_size": None, "retry_for_s": 60, "idempotency_key": None, "request_digest": None,
    }  # fmt: skip
    return NewJob(**(fields_of_all | fields))


def together(database: Database, key: ApiKey, *requests: list[NewJob], quota: Quota | None = None) -> list[Any]:
    async def run() -> list[Any]:
        batcher = EnqueueBatcher(database, quota or Quota(100))
        return await asyncio.gather(*(batcher.submit(jobs, key) for jobs in requests), return_exceptions=True)

    return asyncio.run(run())


def test_each_gets_its_own_answers_in_its_own_order(database: Database, key: ApiKey) -> None:
    requests = [[job(f"{name}/{number}") for number in range(3)] for name in "abcd"]
    for jobs, answers in zip(requests, together(database, key, *requests), strict=True):
        assert [(answer.id, answer.key) for answer in answers] == [(each.id, each.key) for each in jobs]


def test_two_of_one_group_for_one_target_are_one_job_and_a_conflict(database: Database, key: ApiKey) -> None:
    answers = [answer for [answer] in together(database, key, *([job("same")] for _ in range(6)))]
    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert [answer.code for answer in answers if isinstance(answer, Conflict)] == ["key_busy"] * 5


def test_a_repetition_in_the_same_group_is_the_same_job(database: Database, key: ApiKey) -> None:
    same = {"idempotency_key": str(uuid4()), "request_digest": b"d"}
    answers = [answer for [answer] in together(database, key, *([job("once", **same)] for _ in range(6)))]
    assert len({answer.id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 5


def test_a_value_that_the_database_refuses_fails_no_other_request(database: Database, key: ApiKey) -> None:
    poison = [job("poison", labels={"a": "\x00"})]
    answers = together(database, key, [job("first")], poison, [job("second")], [job("third")], [job("fourth")])
    assert isinstance(answers[1], psycopg.DataError)
    assert all(isinstance(answers[at][0], Accepted) for at in (0, 2, 3, 4))


def test_a_value_that_the_database_refuses_uses_no_quota(database: Database, key: ApiKey) -> None:
    poison = [job("poison", labels={"a": "\x00"})]
    requests = [[job("first")], poison, [job("second")], [job("third")], [job("fourth")]]
    answers = together(database, key, *requests, quota=Quota(4, clock=lambda: 0.0))
    assert all(isinstance(answers[at][0], Accepted) for at in (0, 2, 3, 4))


def test_a_quota_counts_across_a_group(database: Database, key: ApiKey) -> None:
    answers = [answer for [answer] in together(database, key, *([job(f"q/{n}")] for n in range(8)), quota=Quota(5))]
    assert sum(isinstance(answer, Accepted) for answer in answers) == 5


def test_a_quota_is_recounted_after_an_outcome_or_after_a_time_without_requests(
    database: Database, key: ApiKey
) -> None:
    now = [0.0]
    quota = Quota(1, clock=lambda: now[0])

    def forget_jobs() -> None:
        with database.connection() as tx:
            tx.execute("DELETE FROM job")

    async def run() -> None:
        batcher = EnqueueBatcher(database, quota)

        async def accepted() -> bool:
            [answer] = await batcher.submit([job(str(uuid4()))], key)
            return isinstance(answer, Accepted)

        assert await accepted()
        forget_jobs()
        now[0] = 1.0
        assert not await accepted()  # the count is that of before
        async with asyncio.timeout(30):
            while not await accepted():
                pass
        forget_jobs()
        now[0] = 3.0
        assert await accepted()

    asyncio.run(run())


def test_keys_do_not_share_statements_and_take_turns(database: Database) -> None:
    with database.transaction() as tx:
        keys = [create_key(tx, tenant, [Scope.SUBMIT])[0] for tenant in ("one", "two", "three")]

    async def run() -> list[Any]:
        batcher = EnqueueBatcher(database, Quota(1000))
        submissions = [(each, job(f"{each.tenant}/{n}", tenant=each.tenant)) for n in range(20) for each in keys]
        return await asyncio.gather(*(batcher.submit([new], each) for each, new in submissions))

    answers = asyncio.run(run())
    assert len(answers) == 60
    with database.connection() as tx:
        actors = tx.execute("SELECT actor, count(*) AS n FROM event GROUP BY actor").fetchall()
    assert {row["actor"]: row["n"] for row in actors} == {each.actor: 20 for each in keys}


def test_without_a_database_every_request_raises(key: ApiKey) -> None:
    nowhere = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    answers = together(nowhere, key, *([job(f"n/{n}")] for n in range(4)))
    assert all(isinstance(answer, psycopg.OperationalError) for answer in answers)
