"""The order of dispatch: priority, then fairness between tenants, then steps that end a job, then age."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.dispatch.selection import choose
from worker.jobs.links import Link
from worker.jobs.room import Limits, Load, OperatorCaps
from worker.jobs.rows import DueItem
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

STORES, TENANTS = ("s1", "s2", "s3"), ("a", "b", "c", "d")
FAST = Link(goodput_bytes_per_s=1e9, answer_bytes=1e6, answer_s=0.01)
SLOW = Link(goodput_bytes_per_s=1e9, answer_bytes=1e6, answer_s=2.5)
RANK = {JobState.FINISHING: 0, JobState.CANCELLING: 0, JobState.UPLOADING: 1, JobState.QUEUED: 2}


def due_item(age: int, tenant: str = "a", *, store: str = "s1", priority: int = 5, state: str = "queued") -> DueItem:
    number = age % 7 if state == JobState.UPLOADING else None
    job_id = UUID(int=age)
    carries = state in {JobState.UPLOADING, JobState.QUEUED}
    return DueItem(job_id, number, store, tenant, priority, JobState(state), 0, carries, None)


def pick(
    due: list[DueItem],
    *,
    free: int,
    in_flight: Mapping[tuple[str, str], int] | None = None,
    caps: Mapping[str, int] | None = None,
    links: Mapping[str, Link] | None = None,
    slots: int = 1_000,
    probed: frozenset[str] = frozenset(),
    tenant_caps: Mapping[str, int] | None = None,
) -> list[DueItem]:
    """Choose, if everything in flight carries content, over fast links unless links are given."""
    known = defaultdict(lambda: FAST) if links is None else links
    limits = Limits(free, slots, caps or {}, _Known(known), probed, tenants=tenant_caps or {})
    return choose(due, limits=limits, in_flight={lane: Load(n, n) for lane, n in (in_flight or {}).items()})


class _Known(dict[str, Link]):
    """Links with a default for the missing ones."""

    def __init__(self, links: Mapping[str, Link]) -> None:
        super().__init__(links)
        self._links = links

    def get(self, store: str, default: Any = None) -> Any:
        return self._links[store] if isinstance(self._links, defaultdict) else self._links.get(store, default)


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
        due_item(age, tenant, store=store, priority=priority, state=state)
        for age, (tenant, store, priority, state) in enumerate(rows)
    ]
)
loads = st.dictionaries(st.tuples(st.sampled_from(STORES), st.sampled_from(TENANTS)), st.integers(0, 12), max_size=8)
frees = st.integers(0, 70)


def keys(rows: list[DueItem]) -> list[UUID]:
    return [item.job_id for item in rows]


def of_tenant(in_flight: dict[tuple[str, str], int], tenant: str) -> int:
    return sum(count for (_, whose), count in in_flight.items() if whose == tenant)


@given(due_lists, frees, loads, st.dictionaries(st.sampled_from(STORES), st.integers(0, 20)))
def test_never_more_than_the_limits_are_chosen(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int], caps: dict[str, int]
) -> None:
    chosen = pick(due, free=free, in_flight=in_flight, caps=caps)
    assert len(chosen) <= free
    assert len(set(keys(chosen))) == len(chosen)
    assert set(keys(chosen)) <= set(keys(due))
    for store, cap in caps.items():
        out = sum(count for (where, _), count in in_flight.items() if where == store)
        assert out + sum(item.store == store for item in chosen) <= max(cap, out)


@given(due_lists, frees, loads, st.dictionaries(st.sampled_from(STORES), st.integers(0, 20)))
def test_no_slot_is_left_while_something_could_run(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int], caps: dict[str, int]
) -> None:
    chosen = pick(due, free=free, in_flight=in_flight, caps=caps)
    out = Counter(item.store for item in chosen)
    for (store, _), count in in_flight.items():
        out[store] += count
    left = [item for item in due if item.job_id not in set(keys(chosen))]
    if len(chosen) < free:
        assert all(out[item.store] >= caps.get(item.store, 1_000_000) for item in left)


@given(due_lists, frees, loads)
def test_the_urgent_goes_first_whatever_its_tenant(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    chosen = pick(due, free=free, in_flight=in_flight)
    priorities = [item.priority for item in chosen]
    assert priorities == sorted(item.priority for item in due)[: len(chosen)]


@given(due_lists, frees, loads)
def test_no_tenant_gets_ahead_of_one_that_has_less(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    """A tenant that waits with equally urgent work has at most one less than any tenant that was served."""
    chosen = pick(due, free=free, in_flight=in_flight)
    given_to = Counter(item.tenant for item in chosen)
    left = [item for item in due if item.job_id not in set(keys(chosen))]
    for waiting in left:
        theirs = of_tenant(in_flight, waiting.tenant) + given_to[waiting.tenant]
        for served in chosen:
            if served.priority != waiting.priority:
                continue
            others = of_tenant(in_flight, served.tenant)
            others += sum(item.tenant == served.tenant for item in chosen[: keys(chosen).index(served.job_id) + 1])
            assert others - 1 <= theirs or served.tenant == waiting.tenant


@given(due_lists, frees, loads)
def test_within_a_tenant_and_store_endings_come_first_and_then_age(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    chosen = pick(due, free=free, in_flight=in_flight)
    for tenant, store in itertools.product(TENANTS, STORES):
        wanted = sorted(
            (item for item in due if (item.tenant, item.store) == (tenant, store)),
            key=lambda item: (item.priority, RANK[JobState(item.state)], item.job_id),
        )
        got = [item for item in chosen if (item.tenant, item.store) == (tenant, store)]
        assert keys(got) == keys(wanted)[: len(got)]


@given(due_lists, frees, loads, st.integers(0, 999).map(random.Random))
def test_the_choice_does_not_depend_on_the_order_of_what_is_due(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int], chance: random.Random
) -> None:
    shuffled = due[:]
    chance.shuffle(shuffled)
    terms: dict[str, Any] = {"free": free, "in_flight": in_flight}
    assert pick(due, **terms) == pick(shuffled, **terms)


@pytest.mark.parametrize(
    ("free", "in_flight", "expected"),
    [(4, {}, {"large": 2, "small": 2}), (2, {("s1", "large"): 62}, {"small": 2})],
    ids=["at once", "when they were there first"],
)
def test_ten_thousand_do_not_hold_up_two(
    free: int, in_flight: dict[tuple[str, str], int], expected: dict[str, int]
) -> None:
    due = [due_item(age, "large") for age in range(10_000)] + [due_item(20_000 + age, "small") for age in range(2)]
    assert Counter(item.tenant for item in pick(due, free=free, in_flight=in_flight)) == expected


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 999).map(random.Random))
def test_no_tenant_starves(tenants: int, free: int, chance: random.Random) -> None:
    """However the slots become free, every tenant with equally urgent work is served in some round."""
    due = [due_item(age * 10 + tenant, f"t{tenant}") for age in range(40) for tenant in range(tenants)]
    flying: list[DueItem] = []
    served: Counter[str] = Counter()
    for _ in range(30):
        in_flight = Counter((item.store, item.tenant) for item in flying)
        chosen = pick(due, free=free, in_flight=in_flight)
        due = [item for item in due if item not in chosen]
        served.update(item.tenant for item in chosen)
        flying = [item for item in flying + chosen if chance.random() < 0.5]
    assert len(served) == tenants


def test_a_store_that_is_full_does_not_hold_up_another() -> None:
    due = [due_item(age, store="full") for age in range(5)] + [due_item(10, store="free")]
    caps = {"full": 2}
    assert keys(pick(due, free=9, in_flight={("full", "b"): 2}, caps=caps)) == [UUID(int=10)]


def test_one_probe_goes_to_a_store_that_waits() -> None:
    due = [due_item(age) for age in range(5)]
    assert len(pick(due, free=9, probed=frozenset({"s1"}))) == 1
    assert pick(due, free=9, in_flight={("s1", "a"): 1}, probed=frozenset({"s1"})) == []


@given(due_lists, frees, loads)
def test_within_a_tenant_the_store_with_less_goes_first(
    due: list[DueItem], free: int, in_flight: dict[tuple[str, str], int]
) -> None:
    """Of two stores of one tenant, one that waits with equally urgent work has at most one less than one served."""
    chosen = pick(due, free=free, in_flight=in_flight)
    load = Counter[str]()
    for (store, _), count in in_flight.items():
        load[store] += count
    chosen_ids = set(keys(chosen))
    for served in chosen:
        ahead = chosen[: keys(chosen).index(served.job_id)]
        before = load[served.store] + sum(item.store == served.store for item in ahead)
        for waiting in (item for item in due if item.job_id not in chosen_ids and item.tenant == served.tenant):
            if waiting.priority == served.priority:
                theirs = load[waiting.store] + sum(item.store == waiting.store for item in ahead)
                assert before <= theirs


def test_a_store_of_which_nothing_is_known_gets_one_request_with_content() -> None:
    """Two of 3 MiB at 64 KiB/s would both miss their deadline."""
    due = [due_item(age, state="uploading") for age in range(5)] + [due_item(9, state="finishing")]
    assert keys(pick(due, free=9, links={})) == [UUID(int=9), UUID(int=0)]
    assert keys(pick(due, free=9, links={}, in_flight={("s1", "b"): 1})) == [UUID(int=9)]


def test_as_many_slices_are_in_flight_as_the_link_carries_in_five_seconds() -> None:
    link = {"s1": Link(goodput_bytes_per_s=1e6, answer_bytes=1e6, answer_s=0.5)}
    due = [due_item(age, state="uploading")._replace(carried_bytes=1_000_000) for age in range(9)]
    assert len(pick(due, free=9, links=link)) == 5
    assert len(pick(due, free=9, links=link, in_flight={("s1", "b"): 4})) == 1
    large = [item._replace(carried_bytes=3_000_000) for item in due]
    assert len(pick(large, free=9, links=link)) == 2
    assert len(pick(large, free=9, links=link | {"s1": Link(0.0, 0.0, 0.5)})) == 1


def test_a_slow_store_holds_half_of_the_slots_also_when_it_is_alone() -> None:
    due = [due_item(age, state="uploading") for age in range(40)]
    assert len(pick(due, free=32, slots=16, links={"s1": SLOW})) == 8
    assert pick(due, free=24, slots=16, links={"s1": SLOW}, in_flight={("s1", "b"): 8}) == []
    assert len(pick(due, free=2, slots=1, links={"s1": SLOW})) == 1


def test_slow_stores_hold_half_of_the_slots_together() -> None:
    due = [due_item(age, store=f"s{age % 2}", state="uploading") for age in range(40)]
    chosen = pick(due, free=32, slots=16, links={"s0": SLOW, "s1": SLOW})
    assert Counter(item.store for item in chosen) == {"s0": 4, "s1": 4}


def test_a_slow_store_leaves_slots_for_another_whatever_its_tenant() -> None:
    due = [due_item(age, store="s1", state="uploading") for age in range(40)] + [
        due_item(50 + age, store="s2") for age in range(9)
    ]
    chosen = pick(due, free=32, slots=16, links={"s1": SLOW, "s2": FAST})
    assert Counter(item.store for item in chosen) == {"s1": 8, "s2": 9}


@given(due_lists, loads, frees, st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 12)))
def test_a_tenants_cap_is_never_passed_and_leaves_no_room_unused(
    due: list[DueItem], load: dict[tuple[str, str], int], free: int, tenant_caps: dict[str, int]
) -> None:
    chosen = pick(due, free=free, in_flight=load, tenant_caps=tenant_caps)
    of_tenant = Counter(item.tenant for item in chosen)
    before = Counter[str]()
    for (_, tenant), count in load.items():
        before[tenant] += count
    for tenant, most in tenant_caps.items():
        assert not of_tenant[tenant] or before[tenant] + of_tenant[tenant] <= most
    left = [item for item in due if item not in chosen]
    if len(chosen) < free:
        assert all(before[item.tenant] + of_tenant[item.tenant] >= tenant_caps.get(item.tenant, 99) for item in left)


@pytest.mark.parametrize(("profile", "operator", "found"), [(4, 2, 2), (2, 4, 2), (None, 3, 3), (5, None, 5)])
def test_of_the_profiles_cap_and_the_operators_the_lower_one_counts(
    profile: int | None, operator: int | None, found: int
) -> None:
    profiles = {} if profile is None else {"s1": profile}
    assert OperatorCaps({} if operator is None else {"s1": operator}).over(profiles)["s1"] == found
