"""Limits networks between a worker and each of its servers: uploads continue and succeed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from tests.faults.network import Network, Server, half_sent
from tests.faults.proxy import BLACK_HOLE, Conditions, Direction, Proxy
from tests.support.deadline import DEADLINE_S
from tests.support.fixtures import Ground
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES
from worker.jobs import control
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.processes import Worker
    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey


@pytest.fixture(scope="module")
def networks(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str
) -> Iterator[Ground[Network]]:
    ground = Ground(lambda: Network(tmp_path_factory.mktemp("network"), postgres, valkey, template_database))
    yield ground
    ground.clear()


@pytest.fixture
def site(networks: Ground[Network]) -> Iterator[Network]:
    yield from networks.lend()


@dataclass(frozen=True)
class Limits:
    """The worst network in which an upload can succeed without healing."""

    latency_s: float
    rate_bytes_per_s: int
    cut: dict[Direction, int]


LIMITS = {
    Server.STORE: Limits(0.02, 4 * MIB, {Direction.REQUESTS: SLICE_BYTES + 200_000}),
    Server.POSTGRES: Limits(0.02, 100_000, {Direction.ANSWERS: 20_000}),
    Server.VALKEY: Limits(0.05, 10_000, {Direction.ANSWERS: 1_500}),
}


def latency(_site: Network, proxy: Proxy, limits: Limits, _held: Job) -> None:
    proxy.apply(Conditions(latency_s=limits.latency_s))


def bandwidth(_site: Network, proxy: Proxy, limits: Limits, _held: Job) -> None:
    proxy.apply(Conditions(rate_bytes_per_s=limits.rate_bytes_per_s))


def cut_again_and_again(_site: Network, proxy: Proxy, limits: Limits, _held: Job) -> None:
    proxy.apply(Conditions(cut=limits.cut))


def half_open(site: Network, proxy: Proxy, _limits: Limits, _held: Job) -> None:
    proxy.freeze()
    if proxy is site.proxies[Server.POSTGRES]:
        # with a server that is gone TCP itself would end the wait; the proxy cannot simulate that, so it heals
        site.until(lambda: silent_for(site, 1.0), "a missed heartbeat")
        proxy.heal()


def resets(site: Network, proxy: Proxy, _limits: Limits, held: Job) -> None:
    for _ in range(4):
        proxy.reset()
        site.until(lambda: proxy.connections > 0 or held.state == "succeeded", "the next connection")
    site.store.control.release()
    proxy.reset()


def black_hole_past_the_lease(site: Network, proxy: Proxy, _limits: Limits, held: Job) -> None:
    [end] = [row["lease_until"] for row in held.slices if row["state"] == "sending"]
    proxy.apply(BLACK_HOLE)
    over = "SELECT now() > %(end)s + interval '0.5 s' AS over"
    site.until(lambda: site.sql(over, end=end)[0]["over"], "the end of the lease")
    proxy.reset()  # a real network would have dropped packets of that age
    proxy.heal()


def silent_for(site: Network, seconds: float) -> bool:
    """Whether every heartbeat is older than this."""
    query = """SELECT bool_and(heartbeat_at < now() - make_interval(secs => %(s)s)) AS silent
               FROM worker WHERE ended_at IS NULL"""
    return bool(site.sql(query, s=seconds)[0]["silent"])


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize(
    "fault", [latency, bandwidth, cut_again_and_again, half_open, resets, black_hole_past_the_lease]
)
def test_uploads_succeed(site: Network, server: Server, fault: Callable[[Network, Proxy, Limits, Job], None]) -> None:
    site.far()
    half = half_sent(site)
    fault(site, site.proxies[server], LIMITS[server], half)
    jobs = [half, site.enqueue(2 * MIB), site.enqueue(1000)]
    site.store.control.release()
    for job in jobs:
        result = job.succeeds()
        assert result.get("slices", {}).get("failed_attempts", 0) == 0
        assert job.row["attempts"] == 0
        assert job.row["epoch"] == 1
    assert half.sent_twice_bytes() <= 6 * SLICE_BYTES  # its one slice, once for each interruption


def lose_answer(proxy: Proxy, pattern: bytes, act: Callable[[], object], done: Callable[[], object]) -> None:
    """Lose the answer to a statement with these bytes, and end the connection after the statement's effect."""
    proxy.apply(Conditions(answers_lost_after=pattern))
    act()
    assert wait_until(lambda: bool(done()), timeout_s=DEADLINE_S)
    proxy.reset()
    proxy.heal()


def claimant(site: Network, worker: Worker) -> bytes:
    """The bytes of a worker's identity: every claim, and every write under one, contains them."""
    query = "SELECT id FROM worker WHERE name LIKE ANY (%(names)s) AND ended_at IS NULL"
    [row] = site.sql(query, names=[f"%:{pid}" for pid in worker.children()])
    return bytes(row["id"].bytes)


def test_a_claim_of_a_step_whose_answer_is_lost_is_reclaimed(site: Network) -> None:
    far = site.far()
    site.leader()
    key = site.fresh_key()
    content = site.file(key, 1000)
    lose_answer(
        site.proxies[Server.POSTGRES],
        claimant(site, far),
        lambda: site.submit(JobSpec(key, key), content),
        lambda: "init_claimed" in site.jobs[0].kinds,
    )
    [job] = site.jobs
    job.succeeds()
    assert (job.row["deaths"], job.row["token"]) == (0, 1)
    assert len(job.asked("upload")) == 1


def test_claims_of_slices_whose_answers_are_lost_are_reclaimed(site: Network) -> None:
    far = site.far()
    site.leader()
    key = site.fresh_key()
    site.store.hold("init", key)
    job = site.enqueue(1 * MIB, key)
    site.store.held("init", key)
    with site.direct.connection() as tx:
        control.pause(tx, [UUID(job.id)], "operator", "until Postgres is far")
    site.store.control.release()
    site.until(lambda: len(job.slices) == 2, "the plan")
    lose_answer(
        site.proxies[Server.POSTGRES],
        claimant(site, far),
        lambda: job.act("retry"),
        lambda: any(row["state"] == "sending" for row in job.slices),  # a link that was slow gets one at a time
    )
    assert job.succeeds()["slices"]["deaths"] == 0
    assert job.sent_twice_bytes() == 0


def test_a_checkpoint_whose_answer_is_lost_is_final(site: Network) -> None:
    far = site.far()
    job = half_sent(site)
    lose_answer(
        site.proxies[Server.POSTGRES],
        claimant(site, far),
        site.store.control.release,
        lambda: job.row["slices_left"] == 0,
    )
    job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert len(job.asked("finish")) == 1


def test_a_success_whose_answer_is_lost_is_final(site: Network) -> None:
    far = site.far()
    key = site.fresh_key()
    site.store.hold("finish", key, when="after")
    job = site.enqueue(2 * MIB, key)
    site.store.held("finish", key)
    lose_answer(
        site.proxies[Server.POSTGRES],
        claimant(site, far),
        site.store.control.release,
        lambda: job.state == "succeeded",
    )
    after = site.enqueue(1000)
    after.succeeds()  # the same worker still works
    assert job.kinds.count("proven") == 1
    assert len(job.asked("finish")) == 1


@pytest.mark.parametrize("named", [False, True])
def test_an_enqueue_whose_answer_is_lost_is_accepted(site: Network, named: bool) -> None:
    site.far()
    key = site.fresh_key()
    content = site.file(key, 1000)
    spec = JobSpec(key, key)
    headers = {"Idempotency-Key": f"order-{key}"} if named else {}
    answers: list[httpx.Response] = []

    def ask() -> httpx.Response:
        return site.api.post("/v1/jobs", json=spec.document, headers=headers)

    asking = threading.Thread(target=lambda: answers.append(ask()))
    lose_answer(site.api_proxy, key.encode(), asking.start, lambda: ids(site, key))
    asking.join(DEADLINE_S)
    [first] = answers
    assert first.status_code == httpx.codes.ACCEPTED, first.text
    assert [first.json()["id"]] == ids(site, key)
    site.note(Job(site, first.json()["id"], key, content, site.media / key)).succeeds()
    if named:
        assert ask().json()["id"] == first.json()["id"]
        other = site.api.post("/v1/jobs", json=spec.document | {"priority": 9}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


def test_after_two_lost_answers_the_same_request_may_be_repeated(site: Network) -> None:
    site.far()
    key = site.fresh_key()
    content = site.file(key, 1000)
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = {"Idempotency-Key": f"order-{key}"}
        answers.append(site.api.post("/v1/jobs", json=JobSpec(key, key).document, headers=headers))

    asking = threading.Thread(target=ask)
    site.api_proxy.apply(Conditions(answers_lost_after=key.encode()))
    asking.start()
    site.until(lambda: ids(site, key), "the job")
    site.api_proxy.apply(BLACK_HOLE)
    site.api_proxy.reset()
    site.until(lambda: site.api_proxy.connections > 0, "the API's second attempt")
    site.api_proxy.apply(Conditions(refuse=True))
    site.api_proxy.reset()
    asking.join(DEADLINE_S)
    site.api_proxy.heal()
    ask()
    first, second = answers
    assert (first.status_code, first.json()["code"]) == (503, "database_unavailable")
    assert first.headers["Retry-After"]
    assert second.status_code == httpx.codes.ACCEPTED, second.text
    assert [second.json()["id"]] == ids(site, key)
    site.note(Job(site, second.json()["id"], key, content, site.media / key)).succeeds()


def ids(site: Network, key: str) -> list[str]:
    return [str(row["id"]) for row in site.sql("SELECT id FROM job WHERE key = %(key)s", key=key)]


def test_a_worker_cut_off_from_postgres_only_does_no_harm_with_what_it_sends_late(site: Network) -> None:
    far = site.far()
    proxy = site.proxies[Server.POSTGRES]
    key = site.fresh_key()
    site.store.hold("data", key, count=2)
    job = site.enqueue(1 * MIB, key)
    site.store.held("data", key, 2)
    proxy.apply(BLACK_HOLE)
    site.near()
    job.succeeds()  # by another worker: the claims of this one have lapsed
    site.store.control.release()
    site.until(lambda: not job.asked("data", state="held"), "the late slices")
    assert len({entry["session"] for entry in job.asked("data")}) == 1
    assert job.sent_twice_bytes() == 2 * SLICE_BYTES
    proxy.reset()
    proxy.heal()
    assert site.known(far)  # if it was declared dead meanwhile, a new process runs in its place


def test_a_worker_cut_off_from_the_store_only_costs_time(site: Network) -> None:
    worker = site.with_store_proxy()
    site.enqueue(1000).succeeds()
    site.store_proxy.apply(Conditions(refuse=True))
    site.store_proxy.reset()
    first = site.enqueue(2 * MIB)
    site.until(lambda: (first.row["error"] or {}).get("code") == "store_unavailable", "its failure")
    site.near()
    for job in (first, site.enqueue(2 * MIB)):
        job.succeeds()
        assert (job.row["attempts"], job.row["result"]["slices"]["failed_attempts"]) == (0, 0)
    site.store_proxy.heal()
    assert worker.alive
    assert not site.sql("SELECT * FROM breaker")
