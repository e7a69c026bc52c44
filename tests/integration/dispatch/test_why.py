"""Why a job waits agrees with what the dispatcher does.

For each reason: the job is not dispatched, why names the reason, and once its cause is gone the job is dispatched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.integration.dispatch.harness import eventually
from tests.integration.jobs.database import ERROR, LEASE, UNAVAILABLE, cancel_job
from tests.integration.jobs.test_holds import ACTING
from tests.support.stores_file import write_stores
from worker.db.pool import Database
from worker.jobs import breakers, caps, control, holds, leadership, transitions, why_snapshot
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.cap_rows import CapKind
from worker.jobs.hold_rows import HoldKind
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState
from worker.jobs.why_reasons import ReasonCode

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.leases import Claim
    from worker.jobs.why_snapshot import JobWhy

STORE = {
    "protocol": "cos-json", "endpoint": "http://h", "appid": "1", "bucket": "b", "secret_id": "fake-secret-id",
    "secret_key": "fake-secret-key",
}  # fmt: skip
SLOTS = 2


@dataclass
class Site:
    """A database, a leader that may be started, and the settings of an API beside it."""

    harness: DispatcherHarness
    file: Path
    caps: dict[str, int] = field(default_factory=lambda: {"main": 64, "other": 64})
    worker: UUID | None = None

    def settings(self) -> Settings:
        stores = {name: STORE | {"max_in_flight": most} for name, most in self.caps.items()}
        write_stores(self.file, stores, {"r": {"path": "/srv/r"}})
        return self.harness.settings(stores_file=self.file)

    def start_worker(self) -> UUID:
        """A worker that stays alive during the test."""
        self.worker = self.harness.db.worker = self.harness.db.start_worker(slots=SLOTS)
        self.harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour' WHERE id = %s", self.worker)
        return self.worker

    def fields(self, **more: Any) -> dict[str, Any]:
        key = f"k/{uuid4()}"
        return {"key": key, "target": f"cos-json://h/1/b/{key}"} | more

    def queued(self, **fields: Any) -> UUID:
        return self.harness.db.enqueue(**self.fields(**fields))

    def uploading(self, slices: int = 2, **fields: Any) -> UUID:
        return self.harness.db.uploading(slices, **self.fields(**fields))

    def lead(self) -> None:
        self.harness.leading(caps=self.caps)

    def why(self, job: UUID, *, tenant: str | None = None, database: Database | None = None) -> JobWhy:
        scopes = {Scope.ADMIN} if tenant is None else {Scope.READ}
        now: datetime = self.harness.db.run("SELECT now() AS now")[0]["now"]
        key = ApiKey(uuid4(), "k", tenant or "any", frozenset(scopes), now)
        with (database or self.harness.db.pool).connection() as tx:
            return why_snapshot.job_why(tx, job, key, self.settings())

    def codes(self, job: UUID, **options: Any) -> list[str]:
        return [str(each.code) for each in self.why(job, **options).reasons]

    def out(self, job: UUID) -> bool:
        """Whether the dispatcher has a step or a slice of the job out."""
        states = {row["state"] for row in self.harness.db.slices(job)}
        return self.harness.db.row(job)["step"] == "dispatched" or "dispatched" in states

    def do(self, work: Callable[[Connection], object]) -> None:
        with self.harness.db.connection() as tx:
            work(tx)

    def hurry(self) -> None:
        self.harness.db.run("NOTIFY sliceway_work")


@pytest.fixture
def site(harness: DispatcherHarness, tmp_path: Path) -> Site:
    harness.db.know_link("other")
    return Site(harness, tmp_path / "stores.toml")


Undo = Callable[[], object]


def pause(site: Site, job: UUID) -> Undo:
    site.do(lambda tx: control.pause(tx, [job], "key 7", "maintenance of the root"))
    return lambda: site.do(lambda tx: control.resume(tx, [job], "key 7"))


def open_breaker(site: Site, _job: UUID) -> Undo:
    site.do(lambda tx: breakers.open_breaker(tx, "main", ERROR, probe_s=600))
    return lambda: site.do(lambda tx: breakers.close_breaker(tx, "main"))


def defer(code: str) -> Callable[[Site, UUID], Undo]:
    """Release what is due of the job, as after this error."""

    def deferred(site: Site, job: UUID) -> Undo:
        db = site.harness.db
        for claim in db.take(job, *range(len(db.slices(job)))):
            release(site, claim, code)
        return lambda: db.run(
            "WITH slices AS (UPDATE slice SET not_before = now() WHERE not_before > now())"
            " UPDATE job SET not_before = now() WHERE not_before > now()"
        )

    return deferred


def release(site: Site, claim: Claim, code: str) -> None:
    deferral = Deferral(timedelta(minutes=5), UNAVAILABLE | {"code": code})
    site.do(lambda tx: transitions.release(tx, claim, deferral))


def hold(kind: str, name: str) -> Callable[[Site, UUID], Undo]:
    """Hold the queue, a store or a tenant."""

    def held(site: Site, _job: UUID) -> Undo:
        site.do(lambda tx: holds.pause(tx, HoldKind(kind), name, ACTING))
        return lambda: site.do(lambda tx: holds.resume(tx, HoldKind(kind), name, ACTING))

    return held


HOLDS = [
    pytest.param(hold("queue", ""), ReasonCode.QUEUE_PAUSED, id="queue held"),
    pytest.param(hold("store", "main"), ReasonCode.STORE_PAUSED, id="store held"),
    pytest.param(hold("tenant", "t"), ReasonCode.TENANT_PAUSED, id="tenant held"),
    pytest.param(pause, ReasonCode.PAUSED, id="paused"),
    pytest.param(open_breaker, ReasonCode.BREAKER_OPEN, id="breaker open"),
    pytest.param(defer("store_unavailable"), ReasonCode.RETRY_LATER, id="next attempt"),
    pytest.param(defer("root_unavailable"), ReasonCode.ROOT_UNAVAILABLE, id="no root"),
    pytest.param(defer("store_changed"), ReasonCode.STORE_CHANGED, id="store changed"),
    pytest.param(defer("tenant_not_allowed"), ReasonCode.TENANT_NOT_ALLOWED, id="tenant not allowed"),
]


@pytest.mark.parametrize("uploads", [False, True], ids=["queued", "uploading"])
@pytest.mark.parametrize(("setup", "code"), HOLDS)
def test_what_holds_one_job(site: Site, setup: Any, code: ReasonCode, *, uploads: bool) -> None:
    site.start_worker()
    job = site.uploading() if uploads else site.queued()
    cure = setup(site, job)
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    assert site.codes(job) == [code]
    assert not site.why(job).runs
    cure()
    site.hurry()
    eventually(lambda: site.out(job), "it is not dispatched although its cause is gone")
    assert site.codes(job) == [ReasonCode.SLOT]  # of a worker: its message is out


def occupy(site: Site, **fields: Any) -> Claim:
    """Let a worker send a slice of another job, which is more urgent and has no other slice."""
    job = site.uploading(1, priority=0, **fields)
    (claim,) = site.harness.db.take(job, 0)
    return claim


def of_the_store(site: Site) -> Undo:
    site.caps["main"] = 1
    claim = occupy(site)
    return lambda: site.harness.db.run("DELETE FROM job WHERE id = %s", claim.job_id)


def by_an_operator(kind: CapKind, name: str) -> Callable[[Site], Undo]:
    """Limit a store or a tenant to what is out already."""

    def limited(site: Site) -> Undo:
        site.do(lambda tx: caps.set_cap(tx, kind, name, 1, ACTING))
        occupy(site)
        return lambda: site.do(lambda tx: caps.set_cap(tx, kind, name, 2, ACTING))

    return limited


def of_an_unknown_link(site: Site) -> Undo:
    site.harness.db.run("DELETE FROM store_link WHERE store = 'main'")
    occupy(site)
    return lambda: site.harness.db.know_link("main")


def of_a_narrow_link(site: Site) -> Undo:
    site.harness.db.know_link("main", goodput=1.0)
    claim = occupy(site)
    return lambda: site.harness.db.checkpoint(claim)


def of_a_slow_store(site: Site) -> Undo:
    site.harness.db.know_link("main", answer_s=60.0)
    claim = occupy(site)
    return lambda: site.harness.db.checkpoint(claim)


CAPS = [
    pytest.param(of_the_store, ReasonCode.STORE_CAP, id="of the store"),
    pytest.param(by_an_operator(CapKind.STORE, "main"), ReasonCode.STORE_CAP, id="of the store by an operator"),
    pytest.param(by_an_operator(CapKind.TENANT, "t"), ReasonCode.TENANT_CAP, id="of the tenant"),
    pytest.param(of_an_unknown_link, ReasonCode.LINK_UNKNOWN, id="of an unknown link"),
    pytest.param(of_a_narrow_link, ReasonCode.LINK_CAP, id="of a narrow link"),
    pytest.param(of_a_slow_store, ReasonCode.SLOW_SHARE, id="of slow stores"),
]


@pytest.mark.parametrize("uploads", [False, True], ids=["queued", "uploading"])
@pytest.mark.parametrize(("setup", "code"), CAPS)
def test_caps(site: Site, setup: Any, code: ReasonCode, *, uploads: bool) -> None:
    site.start_worker()
    job = site.uploading() if uploads else site.queued()
    cure = setup(site)
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    (reason,) = site.why(job).reasons
    assert (reason.code, reason.data["in_flight"], reason.data["most"]) == (code, 1, 1)
    cure()
    site.hurry()
    eventually(lambda: site.out(job), "it is not dispatched although there is room")


def test_a_place_in_line_and_who_holds_the_slots(site: Site) -> None:
    site.start_worker()
    for _ in range(SLOTS):
        site.harness.db.take(site.uploading(2), 0, 1)
    older, urgent, job = site.queued(), site.queued(priority=1), site.queued()
    site.lead()
    site.harness.a_few_ticks()
    assert not any(map(site.out, (older, urgent, job)))
    (reason,) = site.why(job).reasons
    assert reason.code == ReasonCode.SLOT
    assert reason.data == {
        "place": 3, "in_flight": 2 * SLOTS, "slots": SLOTS,
        "holders": [{"tenant": "t", "store": "main", "in_flight": 2 * SLOTS}],
    }  # fmt: skip
    assert "place 3 in its line" in reason.words
    assert [site.why(each).reasons[0].data["place"] for each in (urgent, older)] == [1, 2]
    site.start_worker()
    site.hurry()
    eventually(lambda: all(map(site.out, (older, urgent, job))), "they are not dispatched although slots are free")


def test_a_tenant_with_its_share_is_told_of_others_but_not_who_they_are(site: Site) -> None:
    site.start_worker()
    for _ in range(SLOTS):
        site.harness.db.take(site.uploading(2), 0, 1)
    job, other = site.queued(), site.queued(tenant="secret", store="other")
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    assert site.codes(other) == [ReasonCode.SLOT]
    slot, share = site.why(job).reasons
    assert (slot.code, share.code, share.data["other_tenants"]) == (ReasonCode.SLOT, ReasonCode.TENANT_SHARE, 1)
    assert "secret" not in str(site.why(job, tenant="t"))
    seen = site.why(other, tenant="secret").reasons[0]
    assert seen.data["holders"] == [{"tenant": None, "store": None, "in_flight": 2 * SLOTS}]
    site.harness.db.run(
        "UPDATE slice SET state = 'pending', worker = NULL WHERE job_id IN (SELECT id FROM job LIMIT 1)"
    )
    site.hurry()
    eventually(lambda: site.out(other), "the tenant with the least in flight does not go first")


def test_no_worker(site: Site) -> None:
    site.harness.db.run("DELETE FROM worker")
    job = site.queued()
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    assert site.codes(job) == [ReasonCode.NO_WORKER]
    site.start_worker()
    site.hurry()
    eventually(lambda: site.out(job), "it is not dispatched although a worker lives")


def test_no_leader(site: Site) -> None:
    site.start_worker()
    job = site.queued()
    assert site.codes(job) == [ReasonCode.NO_LEADER]
    site.lead()
    eventually(lambda: site.out(job), "it is not dispatched although a dispatcher leads")


def test_workers_that_take_nothing(site: Site) -> None:
    site.start_worker()
    job, later = site.queued(), site.queued(priority=9)
    site.lead()
    eventually(lambda: site.out(job), "it is not dispatched")
    assert site.codes(job) == [ReasonCode.SLOT]
    site.harness.db.run("UPDATE job SET dispatched_at = now() - interval '40 s' WHERE step = 'dispatched'")
    assert site.codes(job) == [ReasonCode.NO_CONSUMER]
    (message,) = [each for each in site.harness.messages() if each.job == later] or site.harness.messages()[:1]
    site.do(lambda tx: transitions.claim_step(tx, message.claim(site.start_worker()), JobState.QUEUED, LEASE))
    assert ReasonCode.NO_CONSUMER not in site.codes(job)


def test_a_database_that_takes_no_writes(site: Site) -> None:
    site.start_worker()
    job = site.queued()
    db = site.harness.db
    name = db.run("SELECT current_database() AS name")[0]["name"]
    db.run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    site.harness.start(caps=site.caps)
    with closing(Database(site.harness.url)) as fresh:
        assert site.codes(job, database=fresh)[:2] == [ReasonCode.DATABASE_READ_ONLY, ReasonCode.NO_LEADER]
    assert not site.out(job)
    db.run(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    eventually(lambda: site.out(job), "it is not dispatched although the database takes writes")


def test_a_broker_that_is_full_cannot_be_seen_and_the_advice_says_so(site: Site) -> None:
    site.start_worker()
    site.harness.queue.lpush("sliceway", *["{}"] * (2 * SLOTS))
    job = site.queued()
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    (reason,) = site.why(job).reasons
    assert reason.code == ReasonCode.DUE
    assert "broker" in reason.advice
    site.harness.queue.delete("sliceway")
    eventually(lambda: site.out(job), "it is not dispatched although the broker has room")


def test_an_abort_that_waits_for_slices_in_flight(site: Site) -> None:
    site.start_worker()
    job = site.uploading(1)
    (claim,) = site.harness.db.take(job, 0)
    site.do(lambda tx: cancel_job(tx, job))
    site.lead()
    site.harness.a_few_ticks()
    assert not site.out(job)
    (reason,) = site.why(job).reasons
    assert (reason.code, reason.data) == (ReasonCode.CLAIMS_END, {"slices_in_flight": 1})
    release(site, claim, "store_unavailable")
    site.hurry()
    eventually(lambda: site.out(job), "the abort is not dispatched although no slice is in flight")


def test_a_silent_worker_holds_the_step_until_a_leader_takes_it_back(site: Site) -> None:
    job = site.queued()
    silent = site.harness.db.start_worker(slots=1)
    site.harness.db.take(job, worker=silent)
    site.harness.db.run("UPDATE worker SET heartbeat_at = now() - interval '1 min' WHERE id = %s", silent)
    site.start_worker()
    assert site.codes(job) == [ReasonCode.RUNNING, ReasonCode.WORKER_SILENT]
    site.lead()
    eventually(lambda: site.out(job), "its work is not taken back")


def test_what_runs_and_what_holds_the_rest_of_it(site: Site) -> None:
    site.start_worker()
    job = site.uploading(3)
    site.harness.db.take(job, 0, 1)
    with_rest = site.why(job)
    assert (with_rest.runs, with_rest.reasons[0].data["slices_in_flight"]) == (True, 2)
    open_breaker(site, job)
    site.lead()
    site.harness.a_few_ticks()
    assert site.harness.db.states(job) == ["sending", "sending", "pending"]
    assert site.codes(job) == [ReasonCode.RUNNING, ReasonCode.BREAKER_OPEN]


def test_all_jobs_are_counted_under_the_holds_that_they_wait_for(site: Site) -> None:
    site.start_worker()
    site.do(lambda tx: leadership.lead(tx, uuid4(), 600))
    for tenant in ("a", "a", "b", "c"):
        site.queued(tenant=tenant)
    site.uploading(tenant="b")
    for tenant in ("a", "b"):
        hold("tenant", tenant)(site, uuid4())
    now: datetime = site.harness.db.run("SELECT now() AS now")[0]["now"]
    with site.harness.db.connection() as tx:
        found = why_snapshot.queue_why(tx, ApiKey(uuid4(), "k", "any", frozenset({Scope.ADMIN}), now), site.settings())
    counted = {(each.reason.code, each.reason.data.get("tenant")): each.jobs for each in found.reasons}
    assert counted == {("tenant_paused", "a"): 2, ("tenant_paused", "b"): 2, ("due", None): 1}
    assert found.reasons[-1].reason.code == "due"


def test_all_jobs_are_counted_under_their_tenants_limits(site: Site) -> None:
    """A tenant below its limit counts with those that have none."""
    site.start_worker()
    site.do(lambda tx: leadership.lead(tx, uuid4(), 600))
    for tenant in ("a", "b"):
        occupy(site, tenant=tenant)
    for tenant in ("a", "a", "b", "c", "d"):
        site.queued(tenant=tenant)
    for tenant, most in (("a", 1), ("b", 1), ("c", 9)):
        site.do(lambda tx, name=tenant, most=most: caps.set_cap(tx, CapKind.TENANT, name, most, ACTING))
    now: datetime = site.harness.db.run("SELECT now() AS now")[0]["now"]
    with site.harness.db.connection() as tx:
        found = why_snapshot.queue_why(tx, ApiKey(uuid4(), "k", "any", frozenset({Scope.ADMIN}), now), site.settings())
    counted = {(each.reason.code, each.reason.data.get("tenant")): each.jobs for each in found.reasons}
    assert counted == {("tenant_cap", "a"): 2, ("tenant_cap", "b"): 1, ("due", None): 2}
