"""Each reason by itself: when it holds, what it says, and its place among others."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worker.jobs import why
from worker.jobs.cap_rows import CapKind, SetCap
from worker.jobs.hold_rows import Hold, HoldKind
from worker.jobs.links import Link
from worker.jobs.room import Limits, Load
from worker.jobs.states import FINAL, JobState
from worker.jobs.why import EngineState, OpenBreaker, Situation, explain
from worker.jobs.why_reasons import OF_THE_ENGINE, Pause, ReasonCode, StoredError, moment

NOW = datetime(2026, 5, 4, 12, 40, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(minutes=8), NOW + timedelta(minutes=2)
FAST, NARROW, SLOW = Link(1e12, 1e6, 0.01), Link(1.0, 1e6, 0.01), Link(1e12, 1e6, 3.0)
BUSY = StoredError("store_unavailable", "503 Service Unavailable.", "Nothing: it is tried again.")
QUEUED = Situation(
    state=JobState.QUEUED, store="main", tenant="t", priority=5, due=True, carries=True, place_known=True
)
UPLOADING = replace(QUEUED, state=JobState.UPLOADING, carried_bytes=10)


def engine(
    out: int = 0,
    *,
    slots: int = 8,
    cap: int = 64,
    link: Link | None = FAST,
    tenants: dict[str, int] | None = None,
    **fields: Any,
) -> EngineState:
    """A sound engine with so much out to the store main for the tenant t."""
    links = {} if link is None else {"main": link}
    in_flight = {("main", "t"): Load(out, out)} if out else {}
    limits = Limits(2 * slots - out, slots, {"main": cap}, links, tenants=tenants or {})
    values: dict[str, Any] = {
        "now": NOW, "workers": 2, "last_heartbeat_at": NOW, "leads_until": LATER, "untaken_since": None,
        "read_only": False, "breakers": {}, "roots": {"media": 1}, "limits": limits, "in_flight": in_flight,
        "waiting": {},
    }  # fmt: skip
    return EngineState(**values | fields)


def words(it: Situation, state: EngineState) -> str:
    """The sentence of the only reason."""
    (found,) = explain(it, state)
    return found.words


def codes(it: Situation, state: EngineState) -> list[ReasonCode]:
    return [found.code for found in explain(it, state)]


BREAKER = {"main": OpenBreaker(StoredError("store_unusable", "AccessDenied", "Correct the key."), EARLIER, LATER)}
DEFERRED = replace(QUEUED, due=False, next_at=LATER, failing_since=EARLIER, error=BUSY)
STORE_HELD = Hold(HoldKind.STORE, "main", "a disk is changed.", "key 7", "ops", "ann", EARLIER)
TENANT_HELD = Hold(HoldKind.TENANT, "t", None, "key 7", "ops", None, EARLIER)
QUEUE_HELD = Hold(HoldKind.QUEUE, "", "an upgrade", "user root on a", None, None, EARLIER)
STORE_LIMIT = {("store", "main"): SetCap(CapKind.STORE, "main", 3, "a busy link.", "key 7", "ops", "ann", EARLIER)}
TENANT_LIMIT = {("tenant", "t"): SetCap(CapKind.TENANT, "t", 3, None, "key 7", "ops", None, EARLIER)}
SENTENCES = [
    (
        QUEUED, engine(3, cap=3, caps=STORE_LIMIT),
        "Store main has 3 of 3 requests in flight, the limit set by ann at 12:32:00Z: a busy link.",
    ),
    (
        QUEUED, engine(2, cap=2, caps=STORE_LIMIT),  # that of the profile is lower
        "Store main has 2 of 2 requests in flight, its max_in_flight.",
    ),
    (
        QUEUED, engine(3, tenants={"t": 3}, caps=TENANT_LIMIT),
        "Tenant t has 3 of 3 requests in flight, the limit set by key ops at 12:32:00Z.",
    ),
    (
        replace(QUEUED, ahead=1), engine(2, tenants={"t": 3}, caps=TENANT_LIMIT),
        "Tenant t has 2 of 3 requests in flight, the limit set by key ops at 12:32:00Z; place 2 in its line.",
    ),
    (
        QUEUED, engine(holds={("store", "main"): STORE_HELD}),
        "Store main is paused by ann since 12:32:00Z: a disk is changed.",
    ),
    (QUEUED, engine(holds={("tenant", "t"): TENANT_HELD}), "Tenant t is paused by key ops since 12:32:00Z."),
    (
        QUEUED, engine(holds={("queue", ""): QUEUE_HELD}),
        "The queue is paused by user root on a since 12:32:00Z: an upgrade.",
    ),
    (
        Situation(state=JobState.CANCELLING, store="main", abandoned=True), engine(),
        "It was abandoned, and ends when no request of it can be under way any more.",
    ),
    (
        replace(QUEUED, pause=Pause(EARLIER, "key 7", "disk full.")), engine(),
        "Paused by key 7 since 12:32:00Z: disk full.",
    ),
    (replace(UPLOADING, pause=Pause(EARLIER, None, None)), engine(), "Paused since 12:32:00Z."),
    (
        QUEUED, engine(breakers=BREAKER),
        "Store main is unusable since 12:32:00Z (store_unusable: AccessDenied); the next probe goes out at 12:42:00Z.",
    ),
    (
        QUEUED, engine(breakers={"main": replace(BREAKER["main"], probe_at=NOW)}),
        "Store main is unusable since 12:32:00Z (store_unusable: AccessDenied); a probe is due now.",
    ),
    (
        replace(QUEUED, not_served=StoredError("store_changed", "store 'main' is gone", "Put it back.")), engine(),
        "The stores file does not serve it: store 'main' is gone.",
    ),
    (
        DEFERRED, engine(),
        "The next attempt for store main is at 12:42:00Z, after store_unavailable: 503 Service Unavailable.",
    ),
    (replace(DEFERRED, error=None), engine(), "The next attempt for store main is at 12:42:00Z."),
    (
        replace(DEFERRED, root="media", error=StoredError("root_unavailable", "it is empty", "Mount it.")), engine(),
        "Root media is not there (it is empty); 1 of 2 workers can read it, and the next look is at 12:42:00Z.",
    ),
    (QUEUED, engine(read_only=True), "The database takes no writes, so nothing can be dispatched."),
    (
        QUEUED, engine(workers=0, last_heartbeat_at=EARLIER, leads_until=EARLIER),
        "No worker process is alive; the last heartbeat was at 12:32:00Z.",
    ),
    (QUEUED, engine(workers=0, last_heartbeat_at=None, leads_until=None), "No worker process is alive."),
    (
        QUEUED, engine(leads_until=EARLIER),
        "No dispatcher leads since 12:32:00Z, although 2 worker processes live: nothing is dispatched.",
    ),
    (
        QUEUED, engine(untaken_since=EARLIER),
        "Of 2 live worker processes none has taken what was dispatched at 12:32:00Z, and none is at work.",
    ),
    (QUEUED, engine(3, cap=3), "Store main has 3 of 3 requests in flight, its max_in_flight."),
    (
        QUEUED, engine(1, link=NARROW),
        "The link to store main, as measured, takes 1 at once; in flight: 1.",
    ),
    (
        QUEUED, engine(1, link=None),
        "The link to store main is not measured yet, and takes 1 until that is answered; in flight: 1.",
    ),
    (
        QUEUED, engine(4, link=SLOW),
        "Store main is slow: slow stores hold 4 of the 4 slots that they may have together.",
    ),
    (
        replace(QUEUED, ahead=41), engine(16),
        "Waits for a slot, place 42 in its line: 16 requests out for 8 slots.",
    ),
    (
        replace(QUEUED, ahead=why.PLACE_MAX), engine(16),
        "Waits for a slot, place 10,001 or later in its line: 16 requests out for 8 slots.",
    ),
    (
        replace(QUEUED, due=False, dispatched_at=EARLIER), engine(16),
        "Dispatched at 12:32:00Z, and waits for a free slot of a worker: 16 requests out for 8 slots.",
    ),
    (QUEUED, engine(), "Due: the next tick of the dispatcher takes it."),
    (replace(DEFERRED, next_at=NOW), engine(), "Due: the next tick of the dispatcher takes it."),
    (
        Situation(state=JobState.CANCELLING, store="main", sending=2), engine(),
        "It was cancelled, and its abort waits until 2 slices in flight have ended.",
    ),
    (replace(UPLOADING, due=False, sending=3, rate=5_200_000), engine(), "Runs: 3 slices in flight, at 5.20 MB/s."),
    (
        Situation(state=JobState.FINISHING, store="main", step_running=True, worker="w:1"), engine(),
        "Runs: worker w:1 has its finish.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("it", "state", "sentence"), SENTENCES)
def test_each_reason_is_one_sentence(it: Situation, state: EngineState, sentence: str) -> None:
    assert words(it, state) == sentence


def test_every_code_has_its_sentence() -> None:
    said = {each.code for it, state, _ in SENTENCES for each in explain(it, state)}
    assert set(ReasonCode) - said == {
        ReasonCode.TENANT_NOT_ALLOWED, ReasonCode.TENANT_SHARE, ReasonCode.WORKER_SILENT,
    }  # fmt: skip


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[4] / "docs/operating.md").read_text()
    section = text.split("\n## Why is it waiting\n", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(ReasonCode)


@pytest.mark.parametrize("state", FINAL)
def test_what_has_ended_waits_for_nothing(state: JobState) -> None:
    assert explain(Situation(state=state, store="main"), engine(workers=0)) == []


@pytest.mark.parametrize("code", ["store_changed", "tenant_not_allowed"])
def test_a_profile_that_a_worker_found_wrong_has_its_own_code(code: str) -> None:
    found = explain(replace(DEFERRED, error=StoredError(code, "gone", "Put it back.")), engine())
    assert [(each.code, each.until, each.advice) for each in found] == [(code, LATER, "Put it back.")]


def test_the_jobs_own_reasons_come_before_the_engines_and_those_before_caps() -> None:
    broken = engine(16, workers=0, leads_until=None, read_only=True, untaken_since=EARLIER, cap=1, breakers=BREAKER)
    found = codes(replace(DEFERRED, pause=Pause(EARLIER, None, None)), broken)
    assert found == ["paused", "breaker_open", "retry_later", "database_read_only", "no_worker"]
    assert set(found[3:]) <= OF_THE_ENGINE
    assert codes(QUEUED, replace(broken, breakers={})) == ["database_read_only", "no_worker"]


@pytest.mark.parametrize("state", [JobState.FINISHING, JobState.CANCELLING])
def test_a_pause_does_not_hold_what_ends_a_job(state: JobState) -> None:
    assert codes(replace(QUEUED, state=state, pause=Pause(EARLIER, None, None), carries=False), engine()) == ["due"]


def test_an_abort_that_ignores_the_breaker_does_not_wait_for_it() -> None:
    abort = replace(QUEUED, state=JobState.CANCELLING, carries=False)
    assert codes(abort, engine(breakers=BREAKER)) == ["breaker_open"]
    assert codes(replace(abort, ignores_breaker=True), engine(breakers=BREAKER)) == ["due"]


def test_a_cap_that_the_jobs_before_it_will_reach_holds_a_job_back() -> None:
    third = replace(QUEUED, ahead=2)
    (found,) = explain(third, engine(1, cap=3))
    assert (found.code, found.data["in_flight"], found.data["most"], found.data["place"]) == ("store_cap", 1, 3, 3)
    assert found.words == "Store main has 1 of 3 requests in flight, its max_in_flight; place 3 in its line."
    assert codes(third, engine(1, cap=4)) == ["due"]
    assert codes(replace(third, ahead=50), engine(14)) == ["slot"]
    assert codes(replace(third, ahead=50), engine(16, cap=17)) == ["slot"]


def test_what_carries_nothing_is_not_held_by_a_link() -> None:
    assert codes(replace(QUEUED, carries=False), engine(1, link=None)) == ["due"]


def test_a_step_whose_worker_is_silent() -> None:
    held = Situation(state=JobState.INITIALIZING, store="main", step_running=True, worker="w:1", heartbeat_at=EARLIER)
    running, silent = explain(held, engine())
    assert (running.code, silent.code, silent.since) == ("running", "worker_silent", EARLIER)
    assert silent.words.startswith("Its worker w:1 is silent since 12:32:00Z; ")
    assert codes(replace(held, heartbeat_at=NOW), engine()) == ["running"]


def test_what_runs_says_what_holds_the_rest_of_it() -> None:
    part = replace(UPLOADING, sending=2)
    assert codes(part, engine(2, cap=2)) == ["running", "store_cap"]
    assert codes(replace(part, due=False), engine(2, cap=2)) == ["running"]
    assert codes(replace(part, due=False, pause=Pause(EARLIER, None, None)), engine()) == ["running", "paused"]


@pytest.mark.parametrize(
    ("waiting", "others"),
    [
        ({("main", "u"): 5}, 1),
        ({("main", "u"): 5, ("other", "u"): 5, ("main", "v"): 3}, 2),
        ({("main", "u"): 6}, 0),
        ({("main", "t"): 0}, 0),
    ],
)
def test_tenants_with_less_in_flight_or_more_urgent_work_go_first(
    waiting: dict[tuple[str, str], int], others: int
) -> None:
    found = explain(replace(QUEUED, ahead=3), engine(16, waiting=waiting))
    assert [each.code for each in found] == ["slot", "tenant_share"][: 1 + bool(others)]
    if others:
        assert found[1].data == {"tenant": "t", "in_flight": 16, "slots": 8, "other_tenants": others}


def test_holders_of_slots_have_names_only_for_those_who_may_see_them() -> None:
    in_flight = {("main", "t"): Load(4, 4), ("other", "u"): Load(9, 9), ("main", "v"): Load(3, 3)}
    state = engine(16, in_flight=in_flight)
    assert [each["tenant"] for each in state.holders()] == ["u", "t", "v"]
    assert replace(state, only_tenant="t").holders() == [
        {"tenant": None, "store": None, "in_flight": 12}, {"tenant": "t", "store": "main", "in_flight": 4},
    ]  # fmt: skip


def test_a_time_of_another_day_has_its_date() -> None:
    assert moment(NOW - timedelta(days=1), NOW) == "2026-05-03 12:40:00Z"


@pytest.mark.parametrize(
    ("row", "untaken_s"),
    [
        ({"live": 1, "untaken_s": 31.0, "at_work": False}, 31.0),
        ({"live": 0, "untaken_s": 31.0, "at_work": False}, None),
        ({"live": 1, "untaken_s": 29.0, "at_work": False}, None),
        ({"live": 1, "untaken_s": None, "at_work": False}, None),
        ({"live": 1, "untaken_s": 31.0, "at_work": True}, None),
    ],
)
def test_messages_that_no_worker_takes(row: dict[str, Any], untaken_s: float | None) -> None:
    assert why.untaken(row) == untaken_s


def test_what_was_dispatched_before_a_hold_does_not_wait_for_it() -> None:
    state = engine(holds={("store", "main"): STORE_HELD})
    assert codes(replace(QUEUED, due=False, dispatched_at=EARLIER), state) == [ReasonCode.SLOT]
    assert codes(replace(UPLOADING, sending=1), state) == [ReasonCode.RUNNING, ReasonCode.STORE_PAUSED]


def test_holds_come_from_the_widest_to_the_narrowest_and_say_how_they_end() -> None:
    holds = {("tenant", "t"): TENANT_HELD, ("store", "main"): STORE_HELD, ("queue", ""): QUEUE_HELD}
    found = explain(QUEUED, engine(holds=holds))
    assert [each.code for each in found] == ["queue_paused", "store_paused", "tenant_paused"]
    assert [each.advice.split("`")[1] for each in found] == [
        "sliceway queue resume", "sliceway stores resume main", "sliceway tenants resume t",
    ]  # fmt: skip
    assert codes(replace(QUEUED, tenant="u"), engine(holds={("tenant", "t"): TENANT_HELD})) == [ReasonCode.DUE]


def test_a_limit_that_an_operator_has_set_says_by_whom_why_and_what_changes_it() -> None:
    (of_store,) = explain(QUEUED, engine(3, cap=3, caps=STORE_LIMIT))
    assert (of_store.code, of_store.since, of_store.data) == (
        "store_cap", EARLIER,
        {"store": "main", "in_flight": 3, "most": 3, "place": 1, "by": "ann", "reason": "a busy link."},
    )  # fmt: skip
    assert "`sliceway limits set store:main --in-flight N`" in of_store.advice
    (of_tenant,) = explain(QUEUED, engine(3, tenants={"t": 3}, caps=TENANT_LIMIT))
    assert (of_tenant.code, of_tenant.data["tenant"], of_tenant.data["by"]) == ("tenant_cap", "t", "key ops")
    other = replace(QUEUED, tenant="u")
    assert codes(other, engine(3, tenants={"t": 3}, caps=TENANT_LIMIT)) == ["due"]
