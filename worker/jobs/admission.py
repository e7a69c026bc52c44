"""What can be a job at all: the rules of the API that need no query."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from worker.errors import Refused
from worker.ids import new_id
from worker.jobs.transitions import NewJob
from worker.protocols.spec import check_slice_size, normal_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.profiles import Profiles, StoreProfile
    from worker.config.settings import Settings
    from worker.jobs.documents import SourceDocument


class RequestedSource(Protocol):
    """The source that a client asks for, of any kind."""

    @property
    def root(self) -> str:
        """The root below which it lies, and which the tenant must be allowed to read from."""

    def check(self) -> None:
        """Apply the rules of its kind.

        Raises:
            Refused: no worker would open it.
        """

    def document(self) -> SourceDocument:
        """Return what the job keeps of it."""


class JobSpec(NamedTuple):  # made in half the time of a frozen dataclass
    """What a client asks for, each field of the right type and within its bounds.

    Attributes:
        slice_bytes: the slice size to ask the store for; None leaves it to the profile.
        retry_for_s: seconds in failure after which the job fails; None leaves it to the settings.
        idempotency_key: under which the same request is the same job.
        digest: of the request, to tell it from another under the same idempotency key.
        traceparent: of the request, as `worker/telemetry/tracing.py` writes it; not a part of the digest.
    """

    source: RequestedSource
    store: str
    key: str
    overwrite: bool
    slice_bytes: int | None
    verify: str
    priority: int
    attributes: str | None
    labels: Mapping[str, str]
    retry_for_s: int | None
    idempotency_key: str | None
    digest: bytes | None
    traceparent: str | None = None


class Admission:
    """Turns job specs into jobs by what the settings allow; no I/O."""

    def __init__(self, settings: Settings) -> None:
        """Read the profiles.

        Raises:
            SettingsError: the stores file is wrong.
        """
        self._live = settings.live_profiles
        self._retry_for_s = settings.retry_for_s

    @property
    def blind(self) -> frozenset[str]:
        """The stores whose dry runs do not tell of other tenants' jobs."""
        return self._live.profiles.blind

    def new_job(self, requested: JobSpec, tenant: str) -> NewJob:
        """Return the job that is to be inserted.

        Raises:
            Refused: ``unknown_store``, ``unknown_root``, ``bad_key``, ``bad_verify`` or ``bad_slice_size``; or by
                the source's own rules.
        """
        profiles = self._live.profiles  # taken once: a reload may replace them meanwhile
        store = _store(profiles, requested.store, tenant)
        _check_root(profiles, requested.source.root, tenant)
        requested.source.check()
        _check_verify(requested, store)
        key = _key(requested, store, tenant)
        return NewJob(
            id=new_id(),
            tenant=tenant,
            priority=requested.priority,
            source=requested.source.document(),
            store=requested.store,
            key=key,
            target=profiles.places[requested.store] + key,
            overwrite=requested.overwrite,
            attributes=requested.attributes,
            labels=requested.labels,
            verify=requested.verify,
            slice_size=requested.slice_bytes,
            retry_for_s=self._retry_for_s if requested.retry_for_s is None else requested.retry_for_s,
            idempotency_key=requested.idempotency_key,
            request_digest=requested.digest,
            traceparent=requested.traceparent,
        )


def _store(profiles: Profiles, name: str, tenant: str) -> StoreProfile:
    store = profiles.stores.get(name)
    if store is None or not store.allows(tenant):
        raise Refused(
            f"there is no store {name!r} that tenant {tenant!r} may write to",
            code="unknown_store",
            advice="Name a store whose profile lists the tenant.",
        )
    return store


def _check_root(profiles: Profiles, name: str, tenant: str) -> None:
    root = profiles.roots.get(name)
    if root is None or not root.allows(tenant):
        raise Refused(
            f"there is no root {name!r} that tenant {tenant!r} may read from",
            code="unknown_root",
            advice="Name a root whose profile lists the tenant.",
        )


def _key(requested: JobSpec, store: StoreProfile, tenant: str) -> str:
    key, prefix = normal_key(requested.key, store.limits), store.key_prefix(tenant)
    if not key.startswith(prefix):
        raise Refused(
            f"key {key!r} is not below {prefix!r}, where tenant {tenant!r} writes in store {store.name!r}",
            code="bad_key",
            advice=f"Begin the key with {prefix!r}.",
        )
    return key


def _check_verify(requested: JobSpec, store: StoreProfile) -> None:
    limits = store.limits
    if requested.slice_bytes is not None:
        check_slice_size(requested.slice_bytes, limits)
    if requested.verify == "slice" and not limits.slice_digest:
        raise Refused(
            f"verify 'slice' is not possible: {store.protocol} has no digest of a slice",
            code="bad_verify",
            advice="Use 'auto', 'size' or 'file'.",
        )
    forced = limits.verify_slice_bytes
    if requested.verify == "file" and forced is not None and requested.slice_bytes not in (None, forced):
        raise Refused(
            f"verify 'file' needs slices of {forced} bytes, not {requested.slice_bytes}",
            code="bad_slice_size",
            advice="Leave slice_size out, or choose another verify.",
        )
