"""What every store offers: a few calls over values, and a statement of what the protocol can do.

A store is small on purpose. It knows its protocol, maps every failure to a `StoreError` at one seam, retries nothing
but a signature with a corrected clock, and keeps no state of an upload: the session travels as an opaque JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.http.deadline import Guard
    from worker.protocols.spec import ProtocolLimits

Handle = dict[str, Any]
"""A store's own name for an unfinished upload; JSON; read by its driver only."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a job wants at a target, the same for `init` and `put_whole`.

    Attributes:
        key: the object's key, normalised.
        size_bytes: the file's size.
        overwrite: whether an object that is there may be replaced.
        attributes: the job's own attributes for the object, if it gave any.
        mark: ours, `sliceway/<job>/<epoch>`; how it is kept with the object is the driver's business.
    """

    key: str
    size_bytes: int
    overwrite: bool
    attributes: str | None
    mark: str


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the whole file, taken before init. ``proof`` is the driver's own JSON (states, parts).

    Attributes:
        algorithm: such as `sha1`.
        value: lower-case hex.
        proof: what else the protocol wants to see; JSON.
    """

    algorithm: str
    value: str
    proof: Any = None


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that was begun.

    Attributes:
        handle: to be kept in the job's row and handed back with every call.
        slice_bytes: the size that slices must have, the store's word over our wish.
        ordered: slices must go one at a time, in order.
    """

    handle: Handle
    slice_bytes: int
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class UploadInProgress:
    """An upload is already under way at the key; whose and of what content, only `list_slices` can say."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A complete object, as far as the answer describes it.

    Attributes:
        size_bytes: its size, if told.
        digest: lower-case hex of the whole object in the store's algorithm, if the store has one that it was given.
        mark: the `sliceway/<job>/<epoch>` found with it, if any.
        details: what else may be shown to people (URLs without signatures, times).
    """

    size_bytes: int | None = None
    digest: str | None = None
    mark: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadedSlice:
    """A slice that the store lists: where it begins, its size in bytes, and what stands for its content, if told."""

    offset_bytes: int
    size_bytes: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What the store holds of an unfinished upload.

    Attributes:
        handle: of the upload that was found; the caller compares it with its own.
        held: ascending by offset.
        slice_bytes: the slice size of that upload, if told.
        size_bytes: the declared size of the file, if told.
        digest: the whole-file digest that it was begun with, if the store names it: never one that we gave.
        ordered: its slices must go one at a time, in order.
    """

    handle: Handle
    held: Sequence[UploadedSlice]
    slice_bytes: int | None = None
    size_bytes: int | None = None
    digest: str | None = None
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class SliceAck:
    """A slice that the store has acknowledged; ``tag`` is what it returned for it, ``digest`` what we sent (hex)."""

    tag: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Aborted:
    """The unfinished upload is gone from the store (or was not there any more)."""


@dataclass(frozen=True, slots=True)
class AbortSkipped:
    """The unfinished upload was left to expire, and why: removing it could have harmed what is not ours."""

    reason: str


class Digester(Protocol):
    """Takes the digests of a file piece by piece; can be put away and taken up again in another process."""

    piece_bytes: int
    """Every piece but the last must have a multiple of this size."""

    def update(self, piece: memoryview) -> None:
        """Take the next bytes of the file."""

    def progress(self) -> Any:
        """Return JSON from which `StoreDriver.digester` goes on where this one is; only between pieces."""

    def digests(self) -> Digests:
        """Return the digests of all bytes taken."""


class StoreDriver(Protocol):
    """One store: a protocol spoken to one profile. Safe to be used by several threads.

    Every call may raise any `StoreError`, and `Interrupted` from the guard.
    """

    limits: ProtocolLimits

    def init(
        self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard
    ) -> Session | UploadInProgress | Stored:
        """Begin an upload with slices of the wished size.

        Returns:
            A session; or that another upload is under way there; or the finished object (instant upload).

        Raises:
            ObjectExists: an object is there and may not be replaced.
        """

    def list_slices(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored:
        """Return what the store holds of the unfinished upload at the key; pages are hidden.

        Where the protocol finds the upload by key alone the listing may be of another session than ``handle``.

        Raises:
            SessionGone: there is no such upload.
        """

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send one slice; idempotent for the same bytes. Returns once the store has acknowledged it."""

    def finish(self, key: str, handle: Handle, size_bytes: int, guard: Guard) -> Stored:
        """Complete the upload.

        Raises:
            Incomplete: the store lacks bytes.
            Unknown: no clear answer came; look.
        """

    def put_whole(self, intent: Intent, body: memoryview, guard: Guard) -> Stored:
        """Send a small file in one request; the digest goes along where the protocol takes one.

        Returns:
            The object, with its size; without it if the store says that the same object was there already.

        Raises:
            ObjectExists: an object is there and may not be replaced.
            Unknown: no clear answer came; look.
        """

    def look(
        self, key: str, guard: Guard, *, expected: bool = False, finished_mark: str | None = None
    ) -> Stored | None:
        """Return the complete object at the key, or None. An unfinished upload is no object.

        ``expected``: the store has acknowledged the object; where it takes several requests to see it, this tells in
        which order they are fewest.
        ``finished_mark`` is one that no unfinished upload can carry, since it went out with one request that the store
        has acknowledged: what carries it need not be told apart from one.
        """

    def abort(
        self, key: str, handle: Handle | None, guard: Guard, *, mark: str | None = None
    ) -> Aborted | AbortSkipped:
        """Discard the unfinished upload ``handle``, never an object.

        With ``handle`` None, whatever unfinished upload is there (a stranger's that the caller has decided to discard).
        ``mark`` is that of the upload's intent, or all of it but the epoch: what carries it while the upload is
        unfinished is no object. `AbortSkipped` also where the store has the upload still after it was discarded.
        """

    def remove(self, key: str, mark: str, guard: Guard) -> bool:
        """Delete the object at the key that carries this mark, no other; says whether none is there any more."""

    def digester(self, progress: Any = None) -> Digester | None:
        """Return a digester for `init`, going on from ``progress``; None where this machine or protocol has none."""

    def check(self) -> None:
        """Prove with one harmless request that endpoint, credentials, bucket and clock are right.

        Raises:
            StoreError: they are not; says which.
        """

    def close(self) -> None:
        """Close the pooled connections."""
