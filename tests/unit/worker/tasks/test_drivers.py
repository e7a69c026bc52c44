"""The drivers of one process follow a reload of the profiles, and no request loses its connection by it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest

from worker.jobs.leases import Claim
from worker.tasks.drivers import Drivers
from worker.tasks.guard import ClaimGuard

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.stores.base import StoreDriver


class Driver:
    """A driver that notes its end."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Made(Drivers):
    """Drivers that open nothing."""

    def open(self, profile: StoreProfile) -> StoreDriver:  # noqa: ARG002
        return cast("StoreDriver", Driver())


def a_guard() -> ClaimGuard:
    return ClaimGuard(
        Claim(uuid4(), 0, 1, 1, uuid4()), deadline_s=1.0, stopping=threading.Event(), revoked=lambda: False
    )


def closed(driver: StoreDriver) -> bool:
    return cast("Driver", driver).closed


@pytest.fixture
def drivers() -> Made:
    return Made()


def test_an_unchanged_store_keeps_its_driver(drivers: Made, store_profile: StoreProfile) -> None:
    driver = drivers.of(store_profile)
    drivers.close_unused({"main": store_profile}, list)
    assert drivers.of(store_profile) is driver
    assert not closed(driver)


def test_the_driver_of_a_changed_store_is_closed_when_the_work_that_may_use_it_has_ended(
    drivers: Made, store_profile: StoreProfile
) -> None:
    before, other = drivers.of(store_profile), a_guard()
    new = store_profile.model_copy(update={"max_in_flight": 3})
    after = drivers.of(new)
    assert after is not before
    working = a_guard()
    drivers.close_unused({"main": new}, lambda: [working, other])
    drivers.close_unused({"main": new}, lambda: [a_guard(), working])
    assert not closed(before)
    drivers.close_unused({"main": new}, lambda: [a_guard()])
    assert closed(before)
    assert not closed(after)


def test_the_driver_of_a_removed_store_is_closed(drivers: Made, store_profile: StoreProfile) -> None:
    driver = drivers.of(store_profile)
    drivers.close_unused({}, list)
    assert closed(driver)


def test_all_are_closed_at_the_end(drivers: Made, store_profile: StoreProfile) -> None:
    before = drivers.of(store_profile)
    new = store_profile.model_copy(update={"max_in_flight": 3})
    after = drivers.of(new)
    drivers.close_unused({"main": new}, lambda: [a_guard()])
    drivers.close()
    assert closed(before)
    assert closed(after)
