"""What runs next: urgency first, then fairness between tenants, then what ends a job, then age; never too much."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from worker.dispatch.selection import choose
from worker.jobs.states import JobState

Row = dict[str, Any]
STORES, TENANTS = ("s1", "s2", "s3"), ("a", "b", "c", "d")
NO_CAPS: defaultdict[str, int] = defaultdict(lambda: 1_000_000)
RANK = {JobState.FINISHING: 0, JobState.CANCELLING: 0, JobState.UPLOADING: 1, JobState.QUEUED: 2}


def row(age: int, tenant: str = "a", *, store: str = "s1", priority: int = 5, state: str = "queued") -> Row:
    number = age % 7 if state == JobState.UPLOADING else None
    job_id = UUID(int=age)
    return {"job_id": job_id, "number": number, "store": store, "tenant": tenant, "priority": priority, "state": state}


due_lists = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.sampled_from(STORES),
        st.integers(0, 9),
        st.sampled_from([str(state) for state in RANK]),
    ),
    max_size=60,
).map(
    lambda rows: [
        row(age, tenant, store=store, priority=priority, state=state)
        for age, (tenant, store, priority, state) in enumerate(rows)
    ]
)
loads = st.dictionaries(st.tuples(st.sampled_from(STORES), st.sampled_from(TENANTS)), st.integers(0, 12), max_size=8)
frees = st.integers(0, 70)


def keys(rows: list[Row]) -> list[UUID]:
    return [row["job_id"] for row in rows]


def of_tenant(in_flight: dict[tuple[str, str], int], tenant: str) -> int:
    return sum(count for (_, whose), count in in_flight.items() if whose == tenant)


@given(due_lists, frees, loads, st.dictionaries(st.sampled_from(STORES), st.integers(0, 20)))
def test_never_more_than_there_is_room_for(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int], caps: dict[str, int]
) -> None:
    chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS | caps)
    assert len(chosen) <= free
    assert len(set(keys(chosen))) == len(chosen)
    assert set(keys(chosen)) <= set(keys(due))
    for store, cap in caps.items():
        out = sum(count for (where, _), count in in_flight.items() if where == store)
        assert out + sum(row["store"] == store for row in chosen) <= max(cap, out)


@given(due_lists, frees, loads, st.dictionaries(st.sampled_from(STORES), st.integers(0, 20)))
def test_room_is_not_left_while_something_could_go(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int], caps: dict[str, int]
) -> None:
    chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS | caps)
    out = Counter(row["store"] for row in chosen)
    for (store, _), count in in_flight.items():
        out[store] += count
    left = [row for row in due if row["job_id"] not in set(keys(chosen))]
    if len(chosen) < free:
        assert all(out[row["store"]] >= caps.get(row["store"], 1_000_000) for row in left)


@given(due_lists, frees, loads)
def test_the_urgent_goes_first_whoever_it_belongs_to(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS)
    priorities = [row["priority"] for row in chosen]
    assert priorities == sorted(row["priority"] for row in due)[: len(chosen)]


@given(due_lists, frees, loads)
def test_nobody_gets_ahead_of_a_tenant_that_has_less(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    """Whoever waits with work as urgent has at most one less than anybody who was given something."""
    chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS)
    given_to = Counter(row["tenant"] for row in chosen)
    left = [row for row in due if row["job_id"] not in set(keys(chosen))]
    for waiting in left:
        theirs = of_tenant(in_flight, waiting["tenant"]) + given_to[waiting["tenant"]]
        for served in chosen:
            if served["priority"] != waiting["priority"]:
                continue
            others = of_tenant(in_flight, served["tenant"])
            others += sum(
                row["tenant"] == served["tenant"] for row in chosen[: keys(chosen).index(served["job_id"]) + 1]
            )
            assert others - 1 <= theirs or served["tenant"] == waiting["tenant"]


@given(due_lists, frees, loads)
def test_within_a_tenant_endings_come_first_and_then_age(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS)
    for tenant in TENANTS:
        wanted = sorted(
            (row for row in due if row["tenant"] == tenant),
            key=lambda row: (row["priority"], RANK[JobState(row["state"])], row["job_id"]),
        )
        got = [row for row in chosen if row["tenant"] == tenant]
        assert keys(got) == keys(wanted)[: len(got)]


@given(due_lists, frees, loads, st.integers(0, 999).map(random.Random))
def test_the_choice_does_not_depend_on_the_order_of_what_is_due(
    due: list[Row], free: int, in_flight: dict[tuple[str, str], int], chance: random.Random
) -> None:
    shuffled = due[:]
    chance.shuffle(shuffled)
    terms: dict[str, Any] = {"free": free, "in_flight": in_flight, "store_caps": NO_CAPS}
    assert choose(due, **terms) == choose(shuffled, **terms)


def test_ten_thousand_do_not_hold_up_two() -> None:
    due = [row(age, "large") for age in range(10_000)] + [row(20_000 + age, "small") for age in range(2)]
    chosen = choose(due, free=4, in_flight={}, store_caps=NO_CAPS)
    assert Counter(row["tenant"] for row in chosen) == {"large": 2, "small": 2}


def test_ten_thousand_do_not_hold_up_two_when_they_were_there_first() -> None:
    due = [row(age, "large") for age in range(10_000)] + [row(20_000 + age, "small") for age in range(2)]
    chosen = choose(due, free=2, in_flight={("s1", "large"): 62}, store_caps=NO_CAPS)
    assert [row["tenant"] for row in chosen] == ["small", "small"]


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 999).map(random.Random))
def test_nobody_starves(tenants: int, free: int, chance: random.Random) -> None:
    """However the slots come free, everybody with work of the same urgency is served in every round of slots."""
    due = [row(age * 10 + tenant, f"t{tenant}") for age in range(40) for tenant in range(tenants)]
    flying: list[Row] = []
    served: Counter[str] = Counter()
    for _ in range(30):
        in_flight = Counter((row["store"], row["tenant"]) for row in flying)
        chosen = choose(due, free=free, in_flight=in_flight, store_caps=NO_CAPS)
        due = [row for row in due if row not in chosen]
        served.update(row["tenant"] for row in chosen)
        flying = [row for row in flying + chosen if chance.random() < 0.5]
    assert len(served) == tenants


def test_a_store_that_is_full_does_not_hold_up_another() -> None:
    due = [row(age, store="full") for age in range(5)] + [row(10, store="free")]
    caps = NO_CAPS | {"full": 2}
    assert keys(choose(due, free=9, in_flight={("full", "b"): 2}, store_caps=caps)) == [UUID(int=10)]


def test_one_probe_goes_to_a_store_that_waits() -> None:
    due = [row(age) for age in range(5)]
    caps = NO_CAPS | {"s1": 1}
    assert len(choose(due, free=9, in_flight={}, store_caps=caps)) == 1
    assert choose(due, free=9, in_flight={("s1", "a"): 1}, store_caps=caps) == []
