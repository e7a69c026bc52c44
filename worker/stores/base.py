"""What every store offers: a few calls over values, and the limits of its protocol.

A driver knows its protocol and maps every failure to a `StoreError` in one place. It repeats a request only to sign it
with a corrected clock. It keeps no state of an upload: the caller holds the session as an opaque JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.http.deadline import Guard
    from worker.protocols.spec import ProtocolLimits

Handle = dict[str, Any]
"""A store's own name for an unfinished upload, as JSON; only its driver reads it."""


@dataclass(frozen=True, slots=True)
class Intent:
    """The object that a job creates, the same for `init` and `put_whole`.

    Attributes:
        key: the object's key, normalised.
        size_bytes: the file's size.
        overwrite: whether an existing object may be replaced.
        attributes: the job's own attributes for the object, if any.
        mark: our mark, `sliceway/<job>/<epoch>`; the driver decides how the store keeps it with the object.
    """

    key: str
    size_bytes: int
    overwrite: bool
    attributes: str | None
    mark: str


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the whole file, computed before init.

    Attributes:
        algorithm: such as `sha1`.
        value: lower-case hex.
        proof: what else the protocol requires, such as states or parts; JSON, which only the driver reads.
    """

    algorithm: str
    value: str
    proof: Any = None


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that has begun.

    Attributes:
        handle: the job's row keeps it, and every later call passes it.
        slice_bytes: the size that slices must have; the store may choose another than the requested one.
        ordered: slices must be sent one at a time, in order.
    """

    handle: Handle
    slice_bytes: int
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class UploadInProgress:
    """Another upload is in progress at the key; only `list_slices` can tell its session and content."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A complete object, as far as the response describes it.

    Attributes:
        size_bytes: its size, if known.
        digest: of the whole object in the store's algorithm, as lower-case hex, if the store keeps one.
        mark: the `sliceway/<job>/<epoch>` of the object, if any.
        details: other facts for people (URLs without signatures, times).
    """

    size_bytes: int | None = None
    digest: str | None = None
    mark: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadedSlice:
    """A slice in a store's list."""

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What the store has of an unfinished upload.

    Attributes:
        handle: of the upload at the key; the caller compares it with its own.
        slices: ascending by offset.
        slice_bytes: the slice size of that upload, if known.
        size_bytes: the declared size of the file, if known.
        digest: the whole-file digest that the upload began with, if the store's list has it; never our own value.
        ordered: its slices must be sent one at a time, in order.
    """

    handle: Handle
    slices: Sequence[UploadedSlice]
    slice_bytes: int | None = None
    size_bytes: int | None = None
    digest: str | None = None
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class SliceAck:
    """A slice that the store has acknowledged; ``tag`` is the store's, ``digest`` (hex) is ours."""

    tag: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Aborted:
    """The unfinished upload is no longer at the store."""


@dataclass(frozen=True, slots=True)
class AbortSkipped:
    """The unfinished upload was left to expire; ``reason`` says what a removal could have harmed."""

    reason: str


class Digester(Protocol):
    """Computes the digests of a file piece by piece; another process can continue from its progress."""

    piece_bytes: int
    """Every piece but the last must have a multiple of this size."""

    def update(self, piece: memoryview) -> None:
        """Add the next bytes of the file."""

    def progress(self) -> Any:
        """Return JSON with which `StoreDriver.digester` continues; not allowed after the last piece."""

    def digests(self) -> Digests:
        """Return the digests of all bytes added."""


class StoreDriver(Protocol):
    """One store: a protocol with one profile. Several threads may use it.

    Every call may raise any `StoreError`, and `Interrupted` from the guard.
    """

    limits: ProtocolLimits

    def init(
        self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard
    ) -> Session | UploadInProgress | Stored:
        """Begin an upload with slices of the requested size.

        Returns:
            A session; or that another upload is in progress; or the finished object (instant upload).

        Raises:
            ObjectExists: an object is there and must not be replaced.
        """

    def list_slices(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored:
        """Return what the store has of the unfinished upload at the key; all pages of the list in one.

        If the protocol finds an upload by the key alone, the listing may be of another session than ``handle``.

        Raises:
            SessionGone: there is no such upload.
        """

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send one slice and return the store's acknowledgement; idempotent for the same bytes."""

    def finish(self, key: str, handle: Handle, size_bytes: int, guard: Guard) -> Stored:
        """Complete the upload.

        Raises:
            Incomplete: the store lacks bytes.
            Unknown: no clear response came; the caller finds out by `head`.
        """

    def put_whole(self, intent: Intent, body: memoryview, guard: Guard) -> Stored:
        """Send a small file in one request, with its digest if the protocol takes one.

        Returns:
            The object, with its size; without its size if the store responds that the same object was there already.

        Raises:
            ObjectExists: an object is there and must not be replaced.
            Unknown: no clear response came; the caller finds out by `head`.
        """

    def head(
        self, key: str, guard: Guard, *, expected: bool = False, finished_mark: str | None = None
    ) -> Stored | None:
        """Return the complete object at the key, or None. An unfinished upload is no object.

        ``expected``: the store has acknowledged the object. A driver that needs several requests chooses the order in
        which they are fewest.
        ``finished_mark``: a mark that no unfinished upload has, because it was sent in a one-request upload that the
        store has acknowledged. An object with this mark needs no further check.
        """

    def abort(
        self, key: str, handle: Handle | None, guard: Guard, *, mark: str | None = None
    ) -> Aborted | AbortSkipped:
        """Discard the unfinished upload ``handle``, never an object.

        With ``handle`` None, discard any unfinished upload at the key: a foreign one, by the caller's decision.
        ``mark`` is that of the upload's intent, with or without the epoch. An entry with this mark is no object as long
        as the upload is unfinished. Also return `AbortSkipped` if the store still has the upload after the discard.
        """

    def remove(self, key: str, mark: str, guard: Guard) -> bool:
        """Delete the object at the key if it has this mark; return whether no object is there now."""

    def digester(self, progress: Any = None) -> Digester | None:
        """Return a digester for `init` that continues from ``progress``; None if this machine or protocol has none."""

    def check(self) -> None:
        """Verify endpoint, credentials, bucket and clock with one request that changes nothing.

        Raises:
            StoreError: one of them is wrong; says which.
        """

    def close(self) -> None:
        """Close the pooled connections."""
