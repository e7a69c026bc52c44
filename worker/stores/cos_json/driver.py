"""The `StoreDriver` of the COS JSON API ("v4")."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from worker.errors import Interrupted, Permanent, SessionGone, StoreUnusable, Transient
from worker.http.deadline import Deadline
from worker.protocols.cos_json import LIMITS
from worker.protocols.spec import MIB
from worker.stores.base import Aborted, AbortSkipped, Listing, Session, SliceAck, Stored, UploadInProgress
from worker.stores.cos_json import sha1_state
from worker.stores.cos_json.client import STALL_S, CosJsonClient, Operation
from worker.stores.cos_json.errors import Kind, Op, failure, kind_of, unreadable, unusable_slice_size

if TYPE_CHECKING:
    import httpx

    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.stores.base import Digester, Digests, Handle, Intent
    from worker.stores.cos_json.response import StoreResponse

_MARK = re.compile(r"(?:^|\s)(sliceway/[^/\s]+/[0-9]+)$")
_ECHO = ("session", "offset", "datalen")
_ALREADY = frozenset({Kind.ALREADY})
_MISSING = frozenset({Kind.MISSING})
_INIT_ACCEPTED = frozenset({Kind.ALREADY, Kind.UNFINISHED, Kind.SLICE_SIZE})


class CosJsonStore:
    """A `StoreDriver` for a bucket behind the COS JSON API.

    A handle is `{"session": …}` and, if init had the file's sha, `"sha"`, which every later request must repeat.
    """

    limits = LIMITS

    def __init__(
        self, profile: StoreProfile, transport: httpx.BaseTransport | None = None, stall_s: float = STALL_S
    ) -> None:
        self._client = CosJsonClient(profile, transport, stall_s)
        self._always_marked = profile.mark == "always"
        self._check_s = profile.answer_timeout_s

    def init(
        self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard
    ) -> Session | UploadInProgress | Stored:
        """Begin an upload; with digests in slices of 1 MiB, the only size that their states fit."""
        requested = slice_bytes if digests is None else MIB
        response = self._init(intent, requested, digests, guard)
        if not response.ok and kind_of(response) is Kind.SLICE_SIZE and requested != MIB:
            requested = MIB
            response = self._init(intent, requested, digests, guard)
        if not response.ok:
            return _without_session(intent.key, response)
        if response.complete:
            return Stored(details=response.details())
        session = response.text("session")
        size = (
            response.integer("slice_size") if response.has("slice_size") else requested
        )  # optional by the vendor's page
        if session is None or not size:
            raise unreadable(Op.INIT, intent.key, response, "session and slice_size")
        if not _fits_limits(intent.size_bytes, requested, size):
            raise unusable_slice_size(intent.key, response, size)
        sha = None if digests is None else digests.value
        return Session(_handle(session, sha), min(size, LIMITS.max_slice_bytes), ordered=_ordered(response))

    def _init(self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard) -> StoreResponse:
        fields = [("filesize", str(intent.size_bytes)), ("slice_size", str(slice_bytes)), *self._options(intent)]
        if digests is not None:
            if intent.size_bytes > LIMITS.max_digest_bytes:
                raise Permanent(
                    f"{intent.key!r}: a request cannot hold the states of a file above {LIMITS.max_digest_bytes} bytes",
                    code="digest_too_large",
                    advice="Enqueue it with verify set to size.",
                )
            parts = json.dumps(digests.proof, separators=(",", ":"))
            fields += [("sha", digests.value), ("uploadparts", parts)]
        return self._client.call(Operation(Op.INIT, intent.key, tuple(fields), accept=_INIT_ACCEPTED), guard)

    def list_slices(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored:
        """Return the unfinished upload at the key; this API finds it by the key alone."""
        response = self._client.call(Operation(Op.LIST, key), guard)
        if response.complete:
            return Stored(details=response.details())
        session, slices = response.text("session"), response.slices()
        if session is None or slices is None:
            raise unreadable(Op.LIST, key, response, "session and listparts")
        own = handle if handle is not None and handle["session"] == session else None
        return Listing(
            # keep our own handle: the list may omit the sha that every later request must repeat
            handle=own or _handle(session, response.sha()),
            slices=slices,
            slice_bytes=response.integer("slice_size"),
            size_bytes=response.integer("filesize"),
            digest=response.sha(),
            ordered=_ordered(response),
        )

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send one slice, and compare the acknowledgement with the request."""
        fields = (("session", handle["session"]), ("offset", str(offset_bytes)), *_sha(handle))
        response = self._client.call(Operation(Op.DATA, key, fields, body, _ALREADY), guard)
        if not response.ok:
            return Stored(details=response.details())
        sent = (handle["session"], offset_bytes, body.nbytes)
        echoed = (response.text("session"), response.integer("offset"), response.integer("datalen"))
        # A field that the store does not echo is no error: finish compares the store's list with the checkpoints.
        if echoed != sent and any(
            ours != theirs and response.has(name) for name, ours, theirs in zip(_ECHO, sent, echoed, strict=True)
        ):
            raise Transient(
                f"{Op.DATA} of {key!r} at {offset_bytes}: the store acknowledged another session, offset or size",
                code="wrong_echo",
                answer=response.summary,
                counts_as_attempt=True,
            )
        return Stored(details=response.details()) if response.complete else SliceAck()

    def finish(self, key: str, handle: Handle, size_bytes: int, guard: Guard) -> Stored:
        """Complete the upload."""
        fields = (("session", handle["session"]), ("filesize", str(size_bytes)), *_sha(handle))
        response = self._client.call(Operation(Op.FINISH, key, fields, accept=_ALREADY), guard)
        return Stored(details=response.details())

    def put_whole(self, intent: Intent, body: memoryview, guard: Guard) -> Stored:
        """Send a small file, its sha first; the store acknowledges both."""
        sha = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        fields = (("sha", sha), *self._options(intent))
        response = self._client.call(Operation(Op.UPLOAD, intent.key, fields, body, _ALREADY), guard)
        if not response.ok:
            return Stored(details=response.details())
        return Stored(size_bytes=body.nbytes, digest=sha, details=response.details())

    def head(
        self, key: str, guard: Guard, *, expected: bool = False, finished_mark: str | None = None
    ) -> Stored | None:
        """Return the object at the key; an upload that only lacks its finish is no object."""
        if expected and finished_mark is None and self._unfinished(key, None, guard) is None:
            return self._stat(key, guard)
        found = self._stat(key, guard)
        if found is None or (finished_mark is not None and found.mark == finished_mark):
            return found
        # stat before list: slices that arrive between the two must not make an upload look like an object
        listing = self._unfinished(key, None, guard)
        if listing is None:
            return self._stat(key, guard)  # the first stat may have described an upload that is gone now
        return None if _may_be_unfinished(found, listing) else found

    def _unfinished(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored | None:
        try:
            return self.list_slices(key, handle, guard)
        except SessionGone:
            return None

    def _stat(self, key: str, guard: Guard) -> Stored | None:
        """Return the object at the key, or the upload that has all its slices: the API's stat describes both alike."""
        response = self._client.call(Operation(Op.STAT, key, accept=_MISSING), guard)
        if not response.ok:
            return None
        declared, present = response.integer("filesize"), response.integer("filelen")
        if declared is None or present is None:
            raise unreadable(Op.STAT, key, response, "filesize and filelen")
        if present < declared:
            return None
        mark = _MARK.search(response.text("biz_attr") or "")
        return Stored(declared, response.sha(), mark.group(1) if mark else None, response.details())

    def abort(
        self, key: str, handle: Handle | None, guard: Guard, *, mark: str | None = None
    ) -> Aborted | AbortSkipped:
        """Discard the unfinished upload by deleting its path, unless an object is there."""
        listing = self._unfinished(key, handle, guard)
        if listing is None:
            return Aborted()
        if isinstance(listing, Stored):
            return AbortSkipped("the upload is finished: deleting it would delete the object")
        if handle is not None and listing.handle["session"] != handle["session"]:
            return AbortSkipped("the unfinished upload at the key is of another session")
        found = self._stat(key, guard)
        # A full upload looks like an object. If it has the mark of a session that is still unfinished, it is no object:
        # only the finish of that session makes an object with this mark.
        if found is not None and not (_has_mark(found, mark) and _may_be_unfinished(found, listing)):
            return AbortSkipped("an object is at the key, or all bytes of one: deleting the upload could delete it")
        # An object may still appear before the delete, and the API has no conditional delete. The risk is small: no
        # other job has this target, and a fence stops our own finish before an abort begins. The path has one
        # unfinished upload, which was just listed, so no other upload can finish. Only a foreign one-request upload
        # during this round trip remains.
        self._client.call(Operation(Op.DELETE, key, accept=_MISSING), guard)
        return self._verify_discarded(key, listing, guard)

    def _verify_discarded(self, key: str, before: Listing, guard: Guard) -> Aborted | AbortSkipped:
        """Verify that the delete had its effect: the vendor does not promise that it discards every upload."""
        after = self._unfinished(key, before.handle, guard)
        if isinstance(after, Listing) and after.handle["session"] == before.handle["session"]:
            return AbortSkipped("the store lists the upload still, after it has answered that it is deleted")
        return Aborted()

    def remove(self, key: str, mark: str, guard: Guard) -> bool:
        """Delete the object at the key if it has this mark; a foreign object may still appear before the delete."""
        found = self.head(key, guard)
        if found is not None and found.mark == mark:
            self._client.call(Operation(Op.DELETE, key, accept=_MISSING), guard)
        return found is None or found.mark == mark

    def digester(self, progress: Any = None) -> Digester | None:
        """Return a digester; None if this machine's OpenSSL cannot be used."""
        library = sha1_state.library()
        return sha1_state.Sha1States(library, progress) if library is not None else None

    def check(self) -> None:
        """Ask for an object that does not exist: the store must respond in its protocol that it is not there."""
        key = f"sliceway-check-{secrets.token_hex(8)}"
        try:
            response = self._client.call(Operation(Op.STAT, key, accept=_MISSING), Deadline(self._check_s))
        except Interrupted:
            raise Transient(f"the store gave no whole response within {self._check_s:g} s") from None
        if response.code is None:
            raise StoreUnusable(
                "the endpoint does not speak the COS JSON API",
                advice="Correct the store's endpoint, or the proxy before it.",
                answer=response.summary,
            )

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _options(self, intent: Intent) -> list[tuple[str, str]]:
        """Return the form fields that init and a one-request upload share; the attributes end with our mark."""
        marked = self._always_marked or not intent.attributes
        attributes = [intent.attributes, intent.mark] if marked else [intent.attributes]
        return [("biz_attr", " ".join(filter(None, attributes))), ("insertOnly", "0" if intent.overwrite else "1")]


def _handle(session: str, sha: str | None) -> Handle:
    return {"session": session} if sha is None else {"session": session, "sha": sha}


def _ordered(response: StoreResponse) -> bool:
    return response.integer("serial_upload") == 1


def _sha(handle: Handle) -> tuple[tuple[str, str], ...]:
    return (("sha", handle["sha"]),) if "sha" in handle else ()


def _fits_limits(size_bytes: int, requested: int, given: int) -> bool:
    """Return whether slices of the given size fit into memory and into a list, as those of the requested size do."""
    few = LIMITS.max_slices is None or -(-size_bytes // given) <= LIMITS.max_slices
    return min(given, size_bytes) <= LIMITS.max_slice_bytes and (few or given >= requested)


def _without_session(key: str, response: StoreResponse) -> UploadInProgress | Stored:
    match kind_of(response):
        case Kind.UNFINISHED:
            return UploadInProgress()
        case Kind.ALREADY:
            return Stored(details=response.details())
        case _:
            raise failure(Op.INIT, key, response)


def _has_mark(found: Stored, mark: str | None) -> bool:
    """Return whether ``found`` has this mark, or this mark with any epoch."""
    return mark is not None and found.mark is not None and f"{found.mark}/".startswith(f"{mark}/")


def _may_be_unfinished(found: Stored, listing: Listing | Stored) -> bool:
    """Return whether what stat found may be the unfinished upload of the listing instead of an object."""
    if isinstance(listing, Stored):
        return False
    received_bytes = sum(slice_.size_bytes for slice_ in listing.slices)
    return found.size_bytes == received_bytes and listing.size_bytes in {None, received_bytes}
