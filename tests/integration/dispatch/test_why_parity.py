"""In random situations: the dispatcher takes nothing that a reason holds back, and leaves nothing that is due."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.integration.dispatch.test_why import SLOTS, Site
from tests.integration.jobs.database import ERROR, cancel_job
from tests.integration.jobs.test_holds import ACTING
from worker.dispatch.dispatcher import Dispatcher
from worker.jobs import breakers, caps, control, leadership
from worker.jobs.cap_rows import CapKind
from worker.jobs.hold_rows import HoldKind
from worker.jobs.holds import pause as put_hold
from worker.jobs.why_reasons import ReasonCode
from worker.maintenance import promoter

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.jobs.rows import Dispatched
    from worker.jobs.why_reasons import WaitReason

KINDS = ("queued", "queued", "large", "uploading", "sending", "finishing", "cancelling")
MAY_GO = {ReasonCode.DUE, ReasonCode.SLOT}
"""The order between lanes is the dispatcher's: what waits for a slot may get one in the next tick."""


class Recorder:
    """A broker with room, which keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Dispatched] = []

    def holds(self, _length: int) -> bool:
        return False

    def publish(self, batch: list[Dispatched]) -> None:
        self.published += batch


def holds(reason: WaitReason) -> bool:
    """Whether the next tick cannot take the job; what waits behind others of its line may pass them."""
    return reason.code not in MAY_GO and (reason.data.get("place") or 1) == 1


def make(site: Site, kind: str, place: dict[str, Any]) -> UUID:
    db = site.harness.db
    if kind in {"queued", "large"}:
        job = site.queued(**place)
        if kind == "large":  # its init carries nothing
            db.run("UPDATE job SET size_bytes = %s WHERE id = %s", 10**9, job)
        return job
    job = site.uploading(2, **place)
    claims = [] if kind == "uploading" else db.take(job, *([0] if kind == "sending" else [0, 1]))
    if kind == "finishing":
        db.checkpoint(*claims)
    if kind == "cancelling":
        site.do(lambda tx: cancel_job(tx, job))
    return job


def disturb(site: Site, job: UUID, chance: random.Random) -> None:
    if chance.random() < 0.15:
        site.do(lambda tx: control.pause(tx, [job], "o", "why"))
    if chance.random() < 0.2:
        later = "SET not_before = now() + interval '1 hour' WHERE"
        site.harness.db.run(f"UPDATE job {later} id = %s AND step = 'pending'", job)
        site.harness.db.run(f"UPDATE slice {later} job_id = %s AND state = 'pending'", job)


def disturb_stores(site: Site, chance: random.Random) -> None:
    db, link = site.harness.db, chance.choice(["fast", "narrow", "slow", "unknown"])
    if link == "unknown":
        db.run("DELETE FROM store_link WHERE store = 'main'")
    else:
        db.know_link("main", goodput=1.0 if link == "narrow" else 1e12, answer_s=60.0 if link == "slow" else 0.01)
    site.caps["other"] = chance.choice([1, 2, 64])
    if chance.random() < 0.2:
        site.do(lambda tx: breakers.open_breaker(tx, "other", ERROR, probe_s=600))
    for capped, name in ((CapKind.STORE, "other"), (CapKind.TENANT, "a"), (CapKind.TENANT, "b")):
        if chance.random() < 0.3:
            most = chance.choice([1, 1, 2])
            site.do(lambda tx, of=capped, name=name, most=most: caps.set_cap(tx, of, name, most, ACTING))
    for kind, name in (("store", "main"), ("store", "other"), ("tenant", "a"), ("queue", "")):
        if chance.random() < 0.08:
            site.do(lambda tx, kind=kind, name=name: put_hold(tx, HoldKind(kind), name, ACTING))


@pytest.mark.parametrize("seed", range(40))
def test_a_tick_and_why_agree(harness: DispatcherHarness, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    site = Site(harness, tmp_path / "stores.toml")
    harness.db.know_link("other")
    site.start_worker()
    places = [{"tenant": t, "store": s, "priority": p} for t in "ab" for s in ("main", "other") for p in (3, 5)]
    jobs = [make(site, chance.choice(KINDS), chance.choice(places)) for _ in range(chance.randint(1, 7))]
    for job in jobs:
        disturb(site, job, chance)
    disturb_stores(site, chance)
    site.do(lambda tx: leadership.lead(tx, uuid4(), 600))
    settings, recorder = site.settings(), Recorder()
    dispatcher = Dispatcher(broker=recorder, settings=settings, store_caps=site.caps)  # type: ignore[arg-type]
    with harness.db.connection() as tx:
        seen = promoter.promoted_snapshot(tx, whole_bytes=dispatcher.whole_bytes)
        before = {job: [each for each in site.why(job).reasons if each.code != ReasonCode.RUNNING] for job in jobs}
        dispatcher.tick(tx, seen)
    taken = {each.job_id for each in recorder.published}
    refused = {job: reasons for job, reasons in before.items() if reasons and holds(reasons[0])}
    assert taken.isdisjoint(refused), {job: refused[job] for job in taken & set(refused)}
    if not taken:
        assert [reasons for reasons in before.values() if reasons and reasons[0].code == ReasonCode.DUE] == []
    if sum(load.requests for load in seen.in_flight.values()) >= 2 * SLOTS:
        assert taken == set()
