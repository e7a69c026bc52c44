"""Whether a job's profiles still serve it: its store is where it was when the job came, and its tenant may use both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from worker.errors import Conflict, StoreUnusable
from worker.jobs.rows import SourceRef

if TYPE_CHECKING:
    from worker.config.profiles import Profiles, StoreProfile
    from worker.errors import Refused
    from worker.jobs.rows import RetriedJob


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


def check_tenant(profiles: Profiles, tenant: str, store: str, key: str, source: SourceRef) -> None:
    """See that the job's tenant may still read from its root, and write to its key.

    A profile that there is not is none of this function's business.

    Raises:
        StoreUnusable: `tenant_not_allowed`: a list of tenants or a prefix was changed since the job came.
    """
    place, root = profiles.stores.get(store), profiles.roots.get(source.root)
    if root is not None and not root.allows(tenant):
        _not_allowed(f"tenant {tenant!r} may not read from root {root.name!r} any more")
    if place is None:
        return
    if not place.allows(tenant):
        _not_allowed(f"tenant {tenant!r} may not write to store {store!r} any more")
    if not key.startswith(prefix := place.key_prefix(tenant)):
        _not_allowed(f"tenant {tenant!r} writes below {prefix!r} in store {store!r}, and {key!r} is not there")


def wait_error(profiles: Profiles, job: Any) -> StoreUnusable | None:
    """Return why the stores file, as it is now, does not serve a job; None: it does, or the row says so already.

    ``job``: a row with the columns `tenant`, `store`, `key`, `target`, `source` and `error`.
    """
    try:
        store_of(profiles, job.store, job.key, job.target)
        check_tenant(profiles, job.tenant, job.store, job.key, SourceRef.from_json(job.source))
    except StoreUnusable as error:
        if (job.error or {}).get("code") == error.code:
            return None
        error.message += ", by the API's stores file"
        return error
    return None


def retry_refusal(profiles: Profiles, job: RetriedJob) -> Refused | None:
    """Return why a job may not be put back to work, if its tenant may no longer use its profiles."""
    try:
        check_tenant(profiles, job.tenant, job.store, job.key, job.source)
    except StoreUnusable as refused:
        return Conflict(refused.message, code=refused.code, advice=refused.advice)
    return None


def _not_allowed(message: str) -> NoReturn:
    raise StoreUnusable(
        message,
        code="tenant_not_allowed",
        advice="Cancel the job, or let the tenant do it again: see `tenants` and `prefix` in the stores file.",
    )
