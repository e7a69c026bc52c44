"""A leader dispatches no more than operators allow a store or a tenant, and more as soon as they allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.dispatch.harness import eventually
from tests.integration.jobs.test_holds import ACTING
from worker.jobs import caps
from worker.jobs.cap_rows import CapKind

if TYPE_CHECKING:
    from tests.integration.dispatch.harness import DispatcherHarness

OF_STORE, OF_TENANT = (CapKind.STORE, "main"), (CapKind.TENANT, "t")
BOTH = pytest.mark.parametrize("of", [OF_STORE, OF_TENANT], ids=["store", "tenant"])


@pytest.fixture(autouse=True)
def _slots(harness: DispatcherHarness) -> None:
    """One live worker, which stays alive during the test."""
    harness.db.worker = harness.db.start_worker(slots=20)
    harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")


def limit(harness: DispatcherHarness, of: tuple[CapKind, str], most: int | None) -> None:
    with harness.db.transaction() as tx:
        caps.set_cap(tx, *of, most, ACTING)


def out(harness: DispatcherHarness, of: tuple[CapKind, str]) -> int:
    """How many steps and slices are out to the store or for the tenant, those that carry nothing too."""
    [row] = harness.db.run(
        "SELECT (SELECT count(*) FROM slice WHERE state IN ('dispatched', 'sending'))"
        " + (SELECT count(*) FROM job WHERE to_jsonb(job) ->> %s = %s AND step IN ('dispatched', 'running')) AS n",
        *of,
    )
    return int(row["n"])


@BOTH
def test_no_more_is_dispatched_than_is_allowed_and_more_once_it_is(
    harness: DispatcherHarness, of: tuple[CapKind, str]
) -> None:
    limit(harness, of, 2)
    harness.db.uploading(4)
    for _ in range(4):
        harness.db.enqueue()
    harness.db.finishing()
    free = [harness.db.enqueue(tenant="other", store="other") for _ in range(4)]
    harness.leading()
    eventually(lambda: set(free) & {job for job, _ in harness.units()}, "what has no limit is not dispatched")
    harness.a_few_ticks()
    assert out(harness, of) == 2
    limit(harness, of, 5)
    eventually(lambda: out(harness, of) == 5, "raising it dispatches nothing")
    harness.a_few_ticks()
    assert out(harness, of) == 5
    limit(harness, of, None)
    eventually(lambda: out(harness, of) == 9, "removing it dispatches nothing")


@BOTH
def test_a_limit_that_is_lowered_takes_nothing_back_and_lets_nothing_new_begin(
    harness: DispatcherHarness, of: tuple[CapKind, str]
) -> None:
    job = harness.db.uploading(6)
    harness.leading(window=4)
    eventually(lambda: out(harness, of) == 4, "no slice is dispatched")
    limit(harness, of, 2)
    harness.a_few_ticks()
    assert out(harness, of) == 4
    for number in (0, 1, 2):
        harness.db.checkpoint(*harness.db.take(job, number))
        harness.a_few_ticks()
        assert out(harness, of) == max(2, 3 - number)


def test_a_tenants_limit_holds_over_all_stores_and_for_no_other_tenant(harness: DispatcherHarness) -> None:
    limit(harness, OF_TENANT, 3)
    for store in ("main", "other"):
        harness.db.know_link(store)
        for tenant in ("t", "u"):
            for _ in range(4):
                key = f"k/{uuid4()}"
                harness.db.enqueue(tenant=tenant, store=store, key=key, target=key)
    harness.leading()

    def dispatched(tenant: str) -> int:
        query = "SELECT count(*) AS n FROM job WHERE step = 'dispatched' AND tenant = %s"
        return int(harness.db.run(query, tenant)[0]["n"])

    eventually(lambda: dispatched("u") == 8, "another tenant waits")
    harness.a_few_ticks()
    assert dispatched("t") == 3


@pytest.mark.parametrize("profile", [2, 6])
def test_of_the_profiles_cap_and_the_operators_the_lower_one_holds(harness: DispatcherHarness, profile: int) -> None:
    limit(harness, OF_STORE, 4)
    harness.db.uploading(8)
    harness.leading(caps={"main": profile})
    eventually(lambda: out(harness, OF_STORE) == min(4, profile), "it does not dispatch")
    harness.a_few_ticks()
    assert out(harness, OF_STORE) == min(4, profile)
