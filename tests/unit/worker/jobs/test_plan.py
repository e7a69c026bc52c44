"""How a file is divided into slices: without a gap or an overlap, within the store's limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.plan import Plan, choose_slice_bytes, goes_whole, plan_of_unfinished
from worker.protocols.cos_json import LIMITS
from worker.protocols.spec import GIB, KIB, MIB

COS_SIZES = LIMITS.slice_sizes
plans = st.builds(Plan, size_bytes=st.integers(0, 20_000), slice_bytes=st.integers(1, 3_000)).filter(
    lambda plan: plan.total <= 500
)


@given(plans)
def test_slices_cover_the_file_exactly_and_do_not_overlap(plan: Plan) -> None:
    end = 0
    for number in range(plan.total):
        assert number * plan.slice_bytes == end
        assert 0 < plan.length(number) <= plan.slice_bytes
        end += plan.length(number)
    assert end == plan.size_bytes
    assert plan.bytes_of(range(plan.total)) == plan.size_bytes


@given(plans)
def test_only_the_last_slice_may_be_smaller(plan: Plan) -> None:
    assert all(plan.length(number) == plan.slice_bytes for number in range(plan.total - 1))


@given(st.integers(1, 2**53), st.sampled_from(COS_SIZES))
def test_large_files_are_counted_without_rounding(size_bytes: int, slice_bytes: int) -> None:
    plan = Plan(size_bytes, slice_bytes)
    last = plan.total - 1
    assert last * slice_bytes + plan.length(last) == size_bytes


def test_an_empty_file_has_no_slice() -> None:
    assert Plan(0, MIB).total == 0


@given(plans, st.data())
def test_whole_slices_are_recognised_in_any_order_and_number(plan: Plan, data: st.DataObject) -> None:
    held = data.draw(st.lists(st.integers(0, max(0, plan.total - 1)), max_size=30)) if plan.total else []
    pairs = [(number * plan.slice_bytes, plan.length(number)) for number in held]
    assert plan.numbers(pairs) == sorted(set(held))


@given(plans, st.lists(st.tuples(st.integers(-50, 25_000), st.integers(-5, 4_000)), max_size=40))
def test_what_is_not_exactly_a_slice_counts_as_nothing(plan: Plan, held: list[tuple[int, int]]) -> None:
    exact = {(number * plan.slice_bytes, plan.length(number)): number for number in range(plan.total)}
    assert plan.numbers(held) == sorted({exact[pair] for pair in held if pair in exact})


@given(
    st.integers(0, 200 * GIB),
    st.none() | st.sampled_from(COS_SIZES),
    st.sampled_from(COS_SIZES),
    st.none() | st.integers(1, 50_000),
)
def test_the_requested_size_is_used_unless_it_makes_too_many_slices(
    size_bytes: int, requested: int | None, default: int, max_slices: int | None
) -> None:
    chosen = choose_slice_bytes(
        size_bytes, requested=requested, default=default, sizes=COS_SIZES, max_slices=max_slices
    )
    wanted = default if requested is None else requested

    def fits(size: int) -> bool:
        return max_slices is None or Plan(size_bytes, size).total <= max_slices

    assert chosen in COS_SIZES
    if fits(wanted):
        assert chosen == wanted
    elif any(fits(size) for size in COS_SIZES):
        assert fits(chosen)
        assert not any(fits(size) for size in COS_SIZES if size < chosen)
    else:
        assert chosen == max(COS_SIZES)


@pytest.mark.parametrize(
    ("size_bytes", "max_slices", "chosen"),
    [(10 * MIB, None, 1 * MIB), (10 * MIB, 10, 1 * MIB), (10 * MIB + 1, 10, 2 * MIB), (600 * MIB, 10, 3 * MIB)],
)
def test_the_size_is_raised_to_the_first_that_fits(size_bytes: int, max_slices: int | None, chosen: int) -> None:
    sizes = (3 * MIB, 512 * KIB, 2 * MIB, 1 * MIB)
    assert choose_slice_bytes(size_bytes, requested=None, default=MIB, sizes=sizes, max_slices=max_slices) == chosen


@pytest.mark.parametrize(
    ("slice_bytes", "max_slices", "fits"),
    [
        (1024, None, True),
        (64, None, True),  # a size that may not be requested, yet works
        (1, None, True),
        (1, 1000, False),
        (2048, None, True),
        (2049, None, False),
        (0, None, False),
        (-1, None, False),
    ],
)
def test_what_another_client_began_is_gone_on_with_only_in_slices_that_a_worker_can_hold(
    slice_bytes: int, max_slices: int | None, *, fits: bool
) -> None:
    plan = plan_of_unfinished(10_000, slice_bytes, [], most_bytes=2048, max_slices=max_slices)
    assert plan == (Plan(10_000, slice_bytes) if fits else None)


@pytest.mark.parametrize(
    ("held", "slice_bytes"),
    [
        ([(0, 1024)], 1024),
        ([(2048, 1024), (9216, 784)], 1024),  # the last one is smaller
        ([(0, 700), (1024, 1024)], 1024),  # one is not whole
        ([(9216, 784)], None),  # the last one alone does not show the size
        ([(0, 10_000)], None),
        ([], None),
        ([(1024, 1000)], None),
        ([(0, 4096)], None),  # more than fits into a worker's memory
    ],
)
def test_where_the_store_names_no_slice_size_the_slices_show_it(
    held: list[tuple[int, int]], slice_bytes: int | None
) -> None:
    plan = plan_of_unfinished(10_000, None, held, most_bytes=2048, max_slices=None)
    assert (plan.slice_bytes if plan else None) == slice_bytes


@pytest.mark.parametrize(
    ("size_bytes", "requested", "whole"),
    [(0, None, True), (0, 1024, True), (1, 1024, False), (1, None, True), (2048, None, True), (2049, None, False)],
)
def test_small_files_go_whole_unless_slices_were_requested_and_empty_ones_always(
    size_bytes: int, requested: int | None, *, whole: bool
) -> None:
    assert goes_whole(size_bytes, requested=requested, whole_bytes=2048) is whole
