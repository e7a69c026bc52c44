"""A rule injects its fault into the requests that meet its conditions, as often as it says."""

from __future__ import annotations

from typing import Any

import pytest

from worker.emulator.core.faults import Fault, FaultPlan, Rule
from worker.emulator.core.journal import JournalEntry


def entry(**fields: Any) -> JournalEntry:
    return JournalEntry(1, 0.0, "POST", **{"bucket": "b", "path": "videos/a.mp4", "op": "data", "offset": 0, **fields})


def faulty(rule: dict[str, Any], *entries: JournalEntry) -> list[bool]:
    plan = FaultPlan()
    plan.add(Rule.from_json({"fault": "error", **rule}))
    return [bool(plan.faults_for(each).names) for each in entries]


@pytest.mark.parametrize(
    ("conditions", "injected"),
    [
        ({}, True),
        ({"op": "data"}, True),
        ({"op": "init"}, False),
        ({"bucket": "c"}, False),
        ({"path": "videos/*"}, True),
        ({"path": "*.mp4"}, True),
        ({"path": "photos/*"}, False),
        ({"offset": 0}, True),
        ({"offset": 1}, False),
        ({"session": "s"}, False),
    ],
)
def test_every_condition_given_must_hold(conditions: dict[str, Any], injected: bool) -> None:
    assert faulty(conditions, entry()) == [injected]


def test_only_the_nth_match_gets_the_fault() -> None:
    assert faulty({"nth": 2, "op": "data"}, entry(), entry(op="list"), entry(), entry()) == [False, False, True, False]


def test_a_fault_is_injected_at_most_count_times() -> None:
    assert faulty({"count": 2}, *[entry()] * 4) == [True, True, False, False]


def test_a_probability_is_repeatable_with_its_seed() -> None:
    first, second, other = (faulty({"probability": 0.5, "seed": seed}, *[entry()] * 64) for seed in (1, 1, 2))
    assert first == second != other
    assert 10 < sum(first) < 54


def test_rules_combine_and_can_be_removed() -> None:
    plan = FaultPlan()
    delay = plan.add(Rule.from_json({"fault": "delay", "delay_s": 1, "when": "after"}))
    plan.add(Rule.from_json({"fault": "cut"}))
    injected = plan.faults_for(entry())
    assert injected.names == ("delay", "cut")
    assert injected.get(Fault.DELAY, "after") is delay
    assert injected.get(Fault.DELAY, "before") is None
    plan.remove(delay.id)
    assert plan.faults_for(entry()).names == ("cut",)
    plan.remove()
    assert plan.faults_for(entry()).names == ()


def test_a_cut_within_the_body_is_at_its_byte() -> None:
    plan = FaultPlan()
    plan.add(Rule.from_json({"fault": "cut_body", "body_bytes": 100, "op": "data", "count": 1}))
    assert plan.faults_for(entry(body_bytes=500)).names == (), "the fault is for the body only"
    assert [plan.cuts_body(entry(body_bytes=size)) for size in (99, 100, 101)] == [False, True, False]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"fault": "flood"},
        {"fault": "cut", "pth": "*"},
        {"fault": "cut", "nth": "1"},
        {"fault": "cut", "when": "later"},
        {"fault": "cut", "struck": 1},
    ],
)
def test_an_invalid_rule_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rule|Fault"):
        Rule.from_json(given)
