"""Bad networks between a worker and each of its servers: uploads go on, and end well."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from tests.faults.network import Network, Server
from tests.faults.proxy import BLACK_HOLE, Conditions, Proxy, Way
from tests.support.deadline import DEADLINE_S
from tests.support.fixtures import Ground
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES
from worker.jobs import transitions
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
class Bad:
    """How bad the network is: as much as an upload can bear that is to end without healing."""

    latency_s: float
    rate_bytes_per_s: int
    cut: dict[Way, int]


BAD = {
    Server.STORE: Bad(0.02, 4 * MIB, {Way.REQUESTS: SLICE_BYTES + 200_000}),
    Server.POSTGRES: Bad(0.02, 100_000, {Way.ANSWERS: 20_000}),
    Server.VALKEY: Bad(0.05, 10_000, {Way.ANSWERS: 1_500}),
}


def latency(_site: Network, line: Proxy, bad: Bad, _held: Job) -> None:
    line.become(Conditions(latency_s=bad.latency_s))


def bandwidth(_site: Network, line: Proxy, bad: Bad, _held: Job) -> None:
    line.become(Conditions(rate_bytes_per_s=bad.rate_bytes_per_s))


def cut_again_and_again(_site: Network, line: Proxy, bad: Bad, _held: Job) -> None:
    line.become(Conditions(cut=bad.cut))


def half_open(site: Network, line: Proxy, _bad: Bad, _held: Job) -> None:
    line.freeze()
    if line is site.lines[Server.POSTGRES]:
        # TCP itself ends the wait for a server that is gone, and a proxy cannot be that; so this one comes back
        site.until(lambda: silent_for(site, 1.0), "a heartbeat missed")
        line.heal()


def resets(site: Network, line: Proxy, _bad: Bad, held: Job) -> None:
    for _ in range(4):
        line.reset()
        site.until(lambda: line.connections > 0 or held.state == "succeeded", "the next connection")
    site.store.control.release()
    line.reset()


def black_hole_past_the_lease(site: Network, line: Proxy, _bad: Bad, held: Job) -> None:
    [end] = [row["lease_until"] for row in held.slices if row["state"] == "sending"]
    line.become(BLACK_HOLE)
    over = "SELECT now() > %(end)s + interval '0.5 s' AS over"
    site.until(lambda: site.sql(over, end=end)[0]["over"], "the end of the lease")
    line.reset()  # what waited for so long has been given up on the way
    line.heal()


def silent_for(site: Network, seconds: float) -> bool:
    """Whether no worker has said for so long that it lives."""
    query = """SELECT bool_and(heartbeat_at < now() - make_interval(secs => %(s)s)) AS silent
               FROM worker WHERE ended_at IS NULL"""
    return bool(site.sql(query, s=seconds)[0]["silent"])


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize(
    "fault", [latency, bandwidth, cut_again_and_again, half_open, resets, black_hole_past_the_lease]
)
def test_uploads_end_well(site: Network, server: Server, fault: Callable[[Network, Proxy, Bad, Job], None]) -> None:
    site.far()
    half = site.half_sent(2 * MIB, SLICE_BYTES)
    fault(site, site.lines[server], BAD[server], half)
    jobs = [half, site.enqueue(2 * MIB), site.enqueue(1000)]
    site.store.control.release()
    for job in jobs:
        result = job.succeeds()
        assert result.get("slices", {}).get("failed_attempts", 0) == 0
        assert job.row["attempts"] == 0
        assert job.row["epoch"] == 1
    assert half.sent_twice_bytes() <= 6 * SLICE_BYTES  # its one slice, once for each time that it was interrupted


def answer_lost(line: Proxy, word: bytes, act: Callable[[], object], done: Callable[[], object]) -> None:
    """Let Postgres do what a statement with this word asks, and the connection end before the answer is there."""
    line.become(Conditions(deaf_after=word))
    act()
    assert wait_until(lambda: bool(done()), timeout_s=DEADLINE_S)
    line.reset()
    line.heal()


def claimant(site: Network, worker: Worker) -> bytes:
    """What every claim of a worker, and every write under one, has in it."""
    query = "SELECT id FROM worker WHERE name LIKE ANY (%(names)s) AND ended_at IS NULL"
    [row] = site.sql(query, names=[f"%:{pid}" for pid in worker.children()])
    return bytes(row["id"].bytes)


def test_a_claim_of_a_step_whose_answer_is_lost_is_taken_up_again(site: Network) -> None:
    far = site.far()
    site.leader()
    key = site.fresh_key()
    content = site.file(key, 1000)
    answer_lost(
        site.lines[Server.POSTGRES],
        claimant(site, far),
        lambda: site.submit(JobSpec(key, key), content),
        lambda: "init_claimed" in site.jobs[0].kinds,
    )
    [job] = site.jobs
    job.succeeds()
    assert (job.row["deaths"], job.row["token"]) == (0, 1)
    assert len(job.asked("upload")) == 1


def test_claims_of_slices_whose_answers_are_lost_are_taken_up_again(site: Network) -> None:
    far = site.far()
    site.leader()
    key = site.fresh_key()
    site.store.hold("init", key)
    job = site.enqueue(1 * MIB, key)
    site.store.held("init", key)
    with site.direct.connection() as tx:
        transitions.pause(tx, UUID(job.id), "operator", "until Postgres is far")
    site.store.control.release()
    site.until(lambda: len(job.slices) == 2, "the plan")
    answer_lost(
        site.lines[Server.POSTGRES],
        claimant(site, far),
        lambda: job.act("retry"),
        lambda: any(row["state"] == "sending" for row in job.slices),  # a link that was slow gets one at a time
    )
    assert job.succeeds()["slices"]["deaths"] == 0
    assert job.sent_twice_bytes() == 0


def test_a_checkpoint_whose_answer_is_lost_is_final(site: Network) -> None:
    far = site.far()
    job = site.half_sent(2 * MIB, SLICE_BYTES)
    answer_lost(
        site.lines[Server.POSTGRES],
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
    answer_lost(
        site.lines[Server.POSTGRES],
        claimant(site, far),
        site.store.control.release,
        lambda: job.state == "succeeded",
    )
    after = site.enqueue(1000)
    after.succeeds()  # the worker is none the worse
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
    answer_lost(site.door, key.encode(), asking.start, lambda: ids(site, key))
    asking.join(DEADLINE_S)
    [first] = answers
    assert first.status_code == httpx.codes.ACCEPTED, first.text
    assert [first.json()["id"]] == ids(site, key)
    site.note(Job(site, first.json()["id"], key, content, site.media / key)).succeeds()
    if named:
        assert ask().json()["id"] == first.json()["id"]
        other = site.api.post("/v1/jobs", json=spec.document | {"priority": 9}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


def test_where_the_answer_is_lost_twice_the_same_request_may_be_sent_again(site: Network) -> None:
    site.far()
    key = site.fresh_key()
    content = site.file(key, 1000)
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = {"Idempotency-Key": f"order-{key}"}
        answers.append(site.api.post("/v1/jobs", json=JobSpec(key, key).document, headers=headers))

    asking = threading.Thread(target=ask)
    site.door.become(Conditions(deaf_after=key.encode()))
    asking.start()
    site.until(lambda: ids(site, key), "the job")
    site.door.become(BLACK_HOLE)
    site.door.reset()
    site.until(lambda: site.door.connections > 0, "the API trying again")
    site.door.become(Conditions(refuse=True))
    site.door.reset()
    asking.join(DEADLINE_S)
    site.door.heal()
    ask()
    first, again = answers
    assert (first.status_code, first.json()["code"]) == (503, "database_unavailable")
    assert first.headers["Retry-After"]
    assert again.status_code == httpx.codes.ACCEPTED, again.text
    assert [again.json()["id"]] == ids(site, key)
    site.note(Job(site, again.json()["id"], key, content, site.media / key)).succeeds()


def ids(site: Network, key: str) -> list[str]:
    return [str(row["id"]) for row in site.sql("SELECT id FROM job WHERE key = %(key)s", key=key)]


def test_a_worker_cut_off_from_postgres_only_does_no_harm_with_what_it_sends_late(site: Network) -> None:
    far = site.far()
    line = site.lines[Server.POSTGRES]
    key = site.fresh_key()
    site.store.hold("data", key, count=2)
    job = site.enqueue(1 * MIB, key)
    site.store.held("data", key, 2)
    line.become(BLACK_HOLE)
    site.near()
    job.succeeds()  # by another worker: the claims of this one have lapsed
    site.store.control.release()
    site.until(lambda: not job.asked("data", state="held"), "the late slices")
    assert len({entry["session"] for entry in job.asked("data")}) == 1
    assert job.sent_twice_bytes() == 2 * SLICE_BYTES
    line.reset()
    line.heal()
    assert site.known(far)  # where it was taken for dead meanwhile, a new process has its place


def test_a_worker_cut_off_from_the_store_only_costs_time(site: Network) -> None:
    aside = site.aside()
    site.enqueue(1000).succeeds()
    site.side.become(Conditions(refuse=True))
    site.side.reset()
    lone = site.enqueue(2 * MIB)
    site.until(lambda: (lone.row["error"] or {}).get("code") == "store_unavailable", "its failure")
    site.near()
    for job in (lone, site.enqueue(2 * MIB)):
        job.succeeds()
        assert (job.row["attempts"], job.row["result"]["slices"]["failed_attempts"]) == (0, 0)
    site.side.heal()
    assert aside.alive
    assert not site.sql("SELECT * FROM breaker")
