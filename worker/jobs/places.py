"""Whether a job's store still is where it was when the job came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import StoreUnusable

if TYPE_CHECKING:
    from worker.settings import Profiles, StoreProfile


def store_of(profiles: Profiles, store: str, key: str, target: str) -> StoreProfile:
    """Return the profile of a job's store.

    Raises:
        StoreUnusable: `store_changed`: the profile is gone, or leads to another place than when the job came.
    """
    place = profiles.places.get(store)
    if place is None or target != place + key:
        what = "is no longer in the stores file" if place is None else "now leads to another place"
        raise StoreUnusable(
            f"store {store!r} {what}",
            code="store_changed",
            advice="Put the profile back as it was, or cancel the jobs that wait for it.",
        )
    return profiles.stores[store]
