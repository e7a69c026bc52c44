"""A database connection that breaks costs a read and an enqueue nothing; what must not be repeated is a 503."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from sqlalchemy import make_url

from api.enqueue_batcher import EnqueueBatcher
from tests.faults.proxy import HEALTHY, Conditions, Proxy
from tests.integration.api.job_requests import enqueue, job_body
from tests.support.deadline import DEADLINE_S
from worker.db.pool import Database
from worker.errors import QuotaExceeded
from worker.ids import new_id
from worker.jobs import transitions
from worker.jobs.api_keys import Scope, create_key
from worker.jobs.quota import Quota
from worker.jobs.submit import Accepted
from worker.jobs.transitions import NewJob
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


T = TypeVar("T")

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sliceway api'"
WAITING = """SELECT pid FROM pg_stat_activity
             WHERE application_name = 'sliceway api' AND wait_event_type = 'Lock' AND datname = current_database()"""


def kept(api: Any) -> list[str]:
    """The ids of all jobs by their keys; each of them was enqueued once."""
    rows = api.sql(
        """SELECT job.id, count(event.job_id) AS enqueued
           FROM job LEFT JOIN event ON event.job_id = job.id AND event.kind = 'enqueued'
           GROUP BY job.id ORDER BY key"""
    )
    assert all(row["enqueued"] == 1 for row in rows)
    return [str(row["id"]) for row in rows]


def sql(database: Database, statement: str, **params: Any) -> list[dict[str, Any]]:
    with database.connection() as connection:
        return connection.execute(statement.encode(), params).fetchall()


def cut_in_the_middle(database: Database, lock: str, request: Callable[[], T], times: int = 1) -> T:
    """Let a statement of the request wait for a lock, end its session ``times`` times, and release the lock."""
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as tx:
            tx.execute(f"LOCK TABLE {lock} MODE".encode())
            answer = pool.submit(request)
            for _ in range(times):
                assert wait_until(lambda: bool(sql(database, WAITING)), timeout_s=DEADLINE_S)
                for row in sql(database, WAITING):
                    sql(database, "SELECT pg_terminate_backend(%(pid)s, 60000)", pid=row["pid"])  # waits for its end
        return answer.result(DEADLINE_S)


@pytest.fixture
def line(database_url: str) -> Iterator[Proxy]:
    """The network between the API and the database."""
    with closing(Proxy(make_url(database_url).port or 0)) as line:
        yield line


@pytest.fixture
def far_url(database_url: str, line: Proxy) -> str:
    return make_url(database_url).set(port=line.port).render_as_string(hide_password=False)


@pytest.fixture
def far_api(make_api: Callable[..., Any], database_url: str, far_url: str) -> Iterator[Any]:
    """An API that reaches its database over the proxy; the test reaches it directly."""
    with closing(Database(database_url, application="tests")) as direct:
        yield replace(make_api(far_url), database=direct)


@contextmanager
def answer_lost(line: Proxy, word: bytes, done: Callable[[], object]) -> Iterator[None]:
    """A statement that contains this word is executed, and its response is lost."""
    line.apply(Conditions(answers_lost_after=word))
    yield
    assert wait_until(done, timeout_s=DEADLINE_S)
    line.apply(HEALTHY)  # for the next connection; this one stays without responses
    line.reset()


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("/v1/jobs", "job"),
        ("/v1/jobs/{job}", "job"),
        ("/v1/jobs/{job}/slices", "slice"),
        ("/v1/jobs/{job}/events", "event"),
        ("/v1/jobs", "api_key"),
        ("/readyz", "alembic_version"),
    ],
)
def test_a_read_is_sent_once_more(own_api: Any, path: str, table: str) -> None:
    job = enqueue(own_api.client())
    client = own_api.client()  # its key is not known to the API yet
    if table != "api_key":
        client.get("/v1/jobs").raise_for_status()
    lock = f"{table} IN ACCESS EXCLUSIVE"
    answer = cut_in_the_middle(own_api.database, lock, lambda: client.get(path.format(job=job)))
    assert answer.status_code == 200, answer.text
    if path == "/v1/jobs/{job}":
        assert answer.json()["id"] == job


def test_a_read_that_is_cut_twice_is_a_503(own_api: Any) -> None:
    client = own_api.client()
    answer = cut_in_the_middle(own_api.database, "job IN ACCESS EXCLUSIVE", lambda: client.get("/v1/jobs"), times=2)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert client.get("/v1/jobs").status_code == 200


def test_a_request_that_waits_is_answered_at_the_end(own_api: Any) -> None:
    client = own_api.client()
    job = enqueue(client)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, f"/v1/jobs/{job}", params={"wait": "60s"})
        assert wait_until(lambda: len(own_api.waiters) == 1, timeout_s=DEADLINE_S)
        own_api.sql(TERMINATE)
        own_api.move(job, "succeeded")
        assert answer.result(DEADLINE_S).json()["state"] == "succeeded"


def test_sessions_that_end_at_any_moment_fail_no_request(own_api: Any) -> None:
    client = own_api.client()
    accepted = []
    for number in range(20):
        own_api.sql(TERMINATE)  # they end before, during or after the next statement
        accepted.append(enqueue(client, f"{number:02}"))
        own_api.sql(TERMINATE)
        assert client.get(f"/v1/jobs/{accepted[-1]}").status_code == 200
    assert kept(own_api) == accepted


def test_an_enqueue_that_is_cut_before_its_commit_is_sent_once_more(own_api: Any) -> None:
    client = own_api.client()
    answer = cut_in_the_middle(own_api.database, "job IN SHARE", lambda: client.post("/v1/jobs", json=job_body()))
    assert answer.status_code == 202, answer.text
    assert kept(own_api) == [answer.json()["id"]]


def test_an_enqueue_that_is_cut_twice_before_its_commit_is_never_a_202(own_api: Any) -> None:
    client = own_api.client()
    answer = cut_in_the_middle(
        own_api.database, "job IN SHARE", lambda: client.post("/v1/jobs", json=job_body()), times=2
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert kept(own_api) == []
    assert client.post("/v1/jobs", json=job_body()).status_code == 202


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "order-17"}])
def test_an_enqueue_whose_answer_is_lost_is_accepted(far_api: Any, line: Proxy, headers: dict[str, str]) -> None:
    client = far_api.client()
    with ThreadPoolExecutor(1) as pool:
        with answer_lost(line, b"a-key-of-its-own", lambda: kept(far_api)):
            answering = pool.submit(client.post, "/v1/jobs", json=job_body("a-key-of-its-own"), headers=headers)
        answer = answering.result(DEADLINE_S)
    assert answer.status_code == 202, answer.text
    assert "Idempotent-Replayed" not in answer.headers
    assert kept(far_api) == [answer.json()["id"]]
    repeated = client.post("/v1/jobs", json=job_body("a-key-of-its-own"), headers=headers)
    assert repeated.status_code == (202 if headers else 409)
    assert kept(far_api) == [answer.json()["id"]]


def test_an_enqueue_whose_answer_is_lost_is_accepted_though_it_has_ended_and_another_has_its_target(
    far_api: Any, line: Proxy
) -> None:
    client = far_api.client()
    with ThreadPoolExecutor(1) as pool:
        with answer_lost(line, b"a-key-of-its-own", lambda: far_api.count("job") == 2):
            answering = pool.submit(client.post, "/v1/jobs", json=job_body("a-key-of-its-own"))
            assert wait_until(lambda: far_api.count("job") == 1, timeout_s=DEADLINE_S)
            [first] = kept(far_api)
            far_api.move(first, "succeeded")
            far_api.sql(
                """INSERT INTO job SELECT another.* FROM job, jsonb_populate_record(job, jsonb_build_object(
                     'id', %(id)s::text, 'state', 'queued', 'step', 'pending', 'finished_at', NULL)) AS another""",
                id=new_id(),
            )
        answer = answering.result(DEADLINE_S)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["id"], answer.json()["state"]) == (first, "succeeded")
    assert far_api.count("job") == 2


def test_an_enqueue_that_goes_on_while_it_is_sent_once_more_is_one_job(far_api: Any, line: Proxy) -> None:
    """The network ends the connection, and the server does not notice while its statement waits for a lock."""
    client = far_api.client()
    with ThreadPoolExecutor(1) as pool:
        with far_api.database.transaction() as tx:
            tx.execute("LOCK TABLE job IN SHARE MODE")
            answering = pool.submit(client.post, "/v1/jobs", json=job_body())
            assert wait_until(lambda: len(far_api.sql(WAITING)) == 1, timeout_s=DEADLINE_S)
            line.reset()
            assert wait_until(lambda: len(far_api.sql(WAITING)) == 2, timeout_s=DEADLINE_S)
        answer = answering.result(DEADLINE_S)
    assert answer.status_code == 202, answer.text
    assert kept(far_api) == [answer.json()["id"]]


def test_a_batch_whose_answer_is_lost_is_accepted(far_api: Any, line: Proxy) -> None:
    client = far_api.client()
    there = enqueue(client, "a-0")
    batch = {"jobs": [job_body(f"a-{number}") for number in range(5)]}
    with ThreadPoolExecutor(1) as pool:
        with answer_lost(line, b"a-4", lambda: len(kept(far_api)) == 5):
            answering = pool.submit(client.post, "/v1/jobs/batch", json=batch)
        answer = answering.result(DEADLINE_S)
    busy, *accepted = answer.json()["results"]
    assert (busy["problem"]["code"], busy["problem"]["job_id"]) == ("key_busy", there)
    assert [there, *(each["job"]["id"] for each in accepted)] == kept(far_api)


def test_a_dry_run_that_is_cut_is_sent_once_more_and_uses_no_quota(
    make_api: Callable[..., Any], database_url: str
) -> None:
    api = make_api(database_url, SLICEWAY_MAX_LIVE_JOBS="1")
    client = api.client()

    dry = {"dry_run": "true"}
    answer = cut_in_the_middle(
        api.database, "job IN SHARE", lambda: client.post("/v1/jobs", json=job_body(), params=dry)
    )
    assert answer.status_code == 200, answer.text
    assert kept(api) == []
    assert client.post("/v1/jobs", json=job_body()).status_code == 202


def test_a_cancel_whose_answer_is_lost_is_sent_once_more(far_api: Any, line: Proxy) -> None:
    client = far_api.client()
    job = enqueue(client)
    far_api.move(job, "initializing", started_at="2026-01-01T00:00:00Z")
    with ThreadPoolExecutor(1) as pool:
        with answer_lost(line, b"COMMIT", lambda: far_api.sql("SELECT 1 FROM event WHERE kind = 'cancel_requested'")):
            answering = pool.submit(client.post, f"/v1/jobs/{job}/cancel")
        answer = answering.result(DEADLINE_S)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelling")
    assert len(far_api.sql("SELECT 1 FROM event WHERE kind = 'cancel_requested'")) == 1


def test_a_retry_whose_answer_is_lost_is_not_sent_once_more(far_api: Any, line: Proxy) -> None:
    client = far_api.client()
    job = enqueue(client)
    client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    with ThreadPoolExecutor(1) as pool:
        with answer_lost(line, b"COMMIT", lambda: far_api.sql("SELECT 1 FROM event WHERE kind = 'retried'")):
            answering = pool.submit(client.post, f"/v1/jobs/{job}/retry")
        answer = answering.result(DEADLINE_S)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert len(far_api.sql("SELECT 1 FROM event WHERE kind = 'retried'")) == 1


class TestQuota:
    """The count of live jobs after an insert was sent twice. The clock stands still, so that no recount corrects it."""

    most = 5

    @pytest.fixture
    def direct(self, database_url: str) -> Iterator[Database]:
        with closing(Database(database_url, application="tests")) as direct:
            yield direct

    @pytest.fixture
    def enqueue(self, far_url: str, direct: Database) -> Iterator[Callable[..., list[Any]]]:
        """Enqueues jobs with these targets over the proxy."""
        with direct.transaction() as tx:
            key, _ = create_key(tx, "acme", [Scope.SUBMIT])
        quota = Quota(self.most, clock=lambda: 0.0)

        with closing(Database(far_url, application="sliceway api")) as far:

            def enqueue(*targets: str) -> list[Any]:
                return asyncio.run(EnqueueBatcher(far, quota).submit([job(target) for target in targets], key))

            yield enqueue

    def free(self, enqueue: Callable[..., list[Any]]) -> int:
        """How many more jobs are accepted."""
        return sum(isinstance(answer, Accepted) for number in range(9) for answer in enqueue(f"more/{number}"))

    def test_after_a_lost_answer(self, enqueue: Callable[..., list[Any]], direct: Database, line: Proxy) -> None:
        [_] = enqueue("there")
        with ThreadPoolExecutor(1) as pool:
            with answer_lost(line, b"x/2", lambda: len(sql(direct, "SELECT FROM job")) == 3):
                answering = pool.submit(enqueue, "x/1", "there", "x/2")
            answers = answering.result(DEADLINE_S)
        assert [isinstance(answer, Accepted) for answer in answers] == [True, False, True]
        assert self.free(enqueue) == self.most - 3

    def test_after_a_cut_before_the_commit(self, enqueue: Callable[..., list[Any]], direct: Database) -> None:
        answers = cut_in_the_middle(direct, "job IN SHARE", lambda: enqueue("x/1", "x/2", "x/3"))
        assert all(isinstance(answer, Accepted) for answer in answers)
        assert self.free(enqueue) == self.most - 3

    def test_where_the_quota_is_reached(self, enqueue: Callable[..., list[Any]], direct: Database, line: Proxy) -> None:
        targets = [f"x/{number}" for number in range(self.most + 1)]
        with ThreadPoolExecutor(1) as pool:
            with answer_lost(line, b"x/4", lambda: len(sql(direct, "SELECT FROM job")) == self.most):
                answering = pool.submit(enqueue, *targets)
            answers = answering.result(DEADLINE_S)
        assert [isinstance(answer, Accepted) for answer in answers] == [True] * self.most + [False]
        assert isinstance(answers[-1], QuotaExceeded)

    def test_after_a_cut_count(self, enqueue: Callable[..., list[Any]], direct: Database) -> None:
        with direct.transaction() as tx:
            transitions.enqueue(tx, [job(f"there/{number}") for number in range(self.most)], "tests")
        [answer] = cut_in_the_middle(direct, "job IN ACCESS EXCLUSIVE", lambda: enqueue("one-more"))
        assert isinstance(answer, QuotaExceeded)


def job(target: str) -> NewJob:
    return NewJob(
        id=new_id(), tenant="acme", priority=5, source={"kind": "file", "root": "media", "path": "a"}, store="main",
        key=target, target=target, overwrite=False, attributes=None, labels={}, verify="auto", slice_size=None,
        retry_for_s=60, idempotency_key=None, request_digest=None,
    )  # fmt: skip
