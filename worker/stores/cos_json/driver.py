"""The driver of the COS JSON API ("v4"): what a `StoreDriver` promises, in that protocol's operations."""

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
from worker.stores.cos_json.errors import Kind, Op, failure, kind_of, unbearable, unreadable

if TYPE_CHECKING:
    import httpx

    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.stores.base import Digester, Digests, Handle, Intent
    from worker.stores.cos_json.response import Answer

_MARK = re.compile(r"(?:^|\s)(sliceway/[^/\s]+/[0-9]+)$")
_ECHO = ("session", "offset", "datalen")
_ALREADY = frozenset({Kind.ALREADY})
_MISSING = frozenset({Kind.MISSING})
_INIT_ANSWERS = frozenset({Kind.ALREADY, Kind.UNFINISHED, Kind.SLICE_SIZE})


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
        """Begin an upload; with digests, in slices of 1 MiB, the only size that their states fit."""
        wished = slice_bytes if digests is None else MIB
        answer = self._init(intent, wished, digests, guard)
        if not answer.ok and kind_of(answer) is Kind.SLICE_SIZE and wished != MIB:
            wished = MIB
            answer = self._init(intent, wished, digests, guard)
        if not answer.ok:
            return _instead_of_a_session(intent.key, answer)
        if answer.complete:
            return Stored(details=answer.details())
        session = answer.text("session")
        size = answer.integer("slice_size") if answer.has("slice_size") else wished  # optional in the vendor's table
        if session is None or not size:
            raise unreadable(Op.INIT, intent.key, answer, "session and slice_size")
        if not _fits_limits(intent.size_bytes, wished, size):
            raise unbearable(intent.key, answer, size)
        sha = None if digests is None else digests.value
        return Session(_handle(session, sha), min(size, LIMITS.max_slice_bytes), ordered=_ordered(answer))

    def _init(self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard) -> Answer:
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
        return self._client.call(Operation(Op.INIT, intent.key, tuple(fields), accept=_INIT_ANSWERS), guard)

    def list_slices(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored:
        """Return the unfinished upload at the key; this protocol finds it by key alone."""
        answer = self._client.call(Operation(Op.LIST, key), guard)
        if answer.complete:
            return Stored(details=answer.details())
        session, held = answer.text("session"), answer.held()
        if session is None or held is None:
            raise unreadable(Op.LIST, key, answer, "session and listparts")
        own = handle if handle is not None and handle["session"] == session else None
        return Listing(
            # an own one as it was begun: a list need not name the sha that every later request must repeat
            handle=own or _handle(session, answer.sha()),
            held=held,
            slice_bytes=answer.integer("slice_size"),
            size_bytes=answer.integer("filesize"),
            digest=answer.sha(),
            ordered=_ordered(answer),
        )

    def put_slice(
        self, key: str, handle: Handle, offset_bytes: int, body: memoryview, guard: Guard
    ) -> SliceAck | Stored:
        """Send one slice, and compare what the store acknowledges with what was sent."""
        fields = (("session", handle["session"]), ("offset", str(offset_bytes)), *_sha(handle))
        answer = self._client.call(Operation(Op.DATA, key, fields, body, _ALREADY), guard)
        if not answer.ok:
            return Stored(details=answer.details())
        sent = (handle["session"], offset_bytes, body.nbytes)
        told = (answer.text("session"), answer.integer("offset"), answer.integer("datalen"))
        # What is not echoed contradicts nothing: the list that is asked for before finish has the last word.
        if told != sent and any(
            here != there and answer.has(name) for name, here, there in zip(_ECHO, sent, told, strict=True)
        ):
            raise Transient(
                f"{Op.DATA} of {key!r} at {offset_bytes}: the store acknowledged another session, offset or size",
                code="wrong_echo",
                answer=answer.words,
                counts_as_attempt=True,
            )
        return Stored(details=answer.details()) if answer.complete else SliceAck()

    def finish(self, key: str, handle: Handle, size_bytes: int, guard: Guard) -> Stored:
        """Complete the upload."""
        fields = (("session", handle["session"]), ("filesize", str(size_bytes)), *_sha(handle))
        answer = self._client.call(Operation(Op.FINISH, key, fields, accept=_ALREADY), guard)
        return Stored(details=answer.details())

    def put_whole(self, intent: Intent, body: memoryview, guard: Guard) -> Stored:
        """Send a small file, its sha going first; the store acknowledges both."""
        sha = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        fields = (("sha", sha), *self._options(intent))
        answer = self._client.call(Operation(Op.UPLOAD, intent.key, fields, body, _ALREADY), guard)
        if not answer.ok:
            return Stored(details=answer.details())
        return Stored(size_bytes=body.nbytes, digest=sha, details=answer.details())

    def look(
        self, key: str, guard: Guard, *, expected: bool = False, finished_mark: str | None = None
    ) -> Stored | None:
        """Return the object at the key if it is finished; an upload that only lacks its finish is not."""
        if expected and finished_mark is None and self._unfinished(key, None, guard) is None:
            return self._stat(key, guard)
        found = self._stat(key, guard)
        if found is None or (finished_mark is not None and found.mark == finished_mark):
            return found
        # stat before list: slices that come between the two must not make an upload look like an object
        listing = self._unfinished(key, None, guard)
        if listing is None:
            return self._stat(key, guard)  # what was seen may have been an upload that has gone since
        return None if _may_be(found, listing) else found

    def _unfinished(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored | None:
        try:
            return self.list_slices(key, handle, guard)
        except SessionGone:
            return None

    def _stat(self, key: str, guard: Guard) -> Stored | None:
        """Return what is at the key, all its bytes there: an object, or an upload of which every slice has come.

        The protocol's stat answers for both alike.
        """
        answer = self._client.call(Operation(Op.STAT, key, accept=_MISSING), guard)
        if not answer.ok:
            return None
        declared, present = answer.integer("filesize"), answer.integer("filelen")
        if declared is None or present is None:
            raise unreadable(Op.STAT, key, answer, "filesize and filelen")
        if present < declared:
            return None
        mark = _MARK.search(answer.text("biz_attr") or "")
        return Stored(declared, answer.sha(), mark.group(1) if mark else None, answer.details())

    def abort(
        self, key: str, handle: Handle | None, guard: Guard, *, mark: str | None = None
    ) -> Aborted | AbortSkipped:
        """Discard the unfinished upload by deleting its path, only while no object is there."""
        listing = self._unfinished(key, handle, guard)
        if listing is None:
            return Aborted()
        if isinstance(listing, Stored):
            return AbortSkipped("the upload is finished: deleting it would delete the object")
        if handle is not None and listing.handle["session"] != handle["session"]:
            return AbortSkipped("the unfinished upload at the key is of another session")
        found = self._stat(key, guard)
        # A full upload looks like an object. With the mark of the very session that is still unfinished it is none:
        # only the finish of that session would have made an object with it.
        if found is not None and not (_carries(found, mark) and _may_be(found, listing)):
            return AbortSkipped("an object is at the key, or all bytes of one: deleting the upload could delete it")
        # Between the look and the delete an object may still appear, and the protocol has no conditional delete. What
        # bounds it: no other job of ours has this target, and our own finish is fenced off before an abort begins; the
        # one unfinished upload of the path is the one just listed, so nobody can finish another; what is left is a
        # stranger's one-request upload within the round trip between the two.
        self._client.call(Operation(Op.DELETE, key, accept=_MISSING), guard)
        return self._discarded(key, listing, guard)

    def _discarded(self, key: str, before: Listing, guard: Guard) -> Aborted | AbortSkipped:
        """Look whether the delete had its effect: that it discards an upload is nowhere promised for every case."""
        after = self._unfinished(key, before.handle, guard)
        if isinstance(after, Listing) and after.handle["session"] == before.handle["session"]:
            return AbortSkipped("the store lists the upload still, after it has answered that it is deleted")
        return Aborted()

    def remove(self, key: str, mark: str, guard: Guard) -> bool:
        """Delete the object at the key that carries this mark; a stranger's could only come between look and delete."""
        found = self.look(key, guard)
        if found is not None and found.mark == mark:
            self._client.call(Operation(Op.DELETE, key, accept=_MISSING), guard)
        return found is None or found.mark == mark

    def digester(self, progress: Any = None) -> Digester | None:
        """Return a digester; None where this machine's OpenSSL cannot be used (`sha1_state.MISSING` says it)."""
        library = sha1_state.library()
        return sha1_state.Sha1States(library, progress) if library is not None else None

    def check(self) -> None:
        """Look for an object that nobody has: the store must say, in its own protocol, that it is not there."""
        key = f"sliceway-check-{secrets.token_hex(8)}"
        try:
            answer = self._client.call(Operation(Op.STAT, key, accept=_MISSING), Deadline(self._check_s))
        except Interrupted:
            raise Transient(f"the store gave no whole answer within {self._check_s:g} s") from None
        if answer.code is None:
            raise StoreUnusable(
                "the endpoint does not speak the COS JSON API",
                advice="Correct the store's endpoint, or the proxy before it.",
                answer=answer.words,
            )

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _options(self, intent: Intent) -> list[tuple[str, str]]:
        """Return what init and a one-request upload say alike; the attributes end in our mark."""
        marked = self._always_marked or not intent.attributes
        attributes = [intent.attributes, intent.mark] if marked else [intent.attributes]
        return [("biz_attr", " ".join(filter(None, attributes))), ("insertOnly", "0" if intent.overwrite else "1")]


def _handle(session: str, sha: str | None) -> Handle:
    return {"session": session} if sha is None else {"session": session, "sha": sha}


def _ordered(answer: Answer) -> bool:
    return answer.integer("serial_upload") == 1


def _sha(handle: Handle) -> tuple[tuple[str, str], ...]:
    return (("sha", handle["sha"]),) if "sha" in handle else ()


def _fits_limits(size_bytes: int, wished: int, given: int) -> bool:
    """Say whether slices of the size given can be held in memory and listed; the wish was chosen so that they can."""
    few = LIMITS.max_slices is None or -(-size_bytes // given) <= LIMITS.max_slices
    return min(given, size_bytes) <= LIMITS.max_slice_bytes and (few or given >= wished)


def _instead_of_a_session(key: str, answer: Answer) -> UploadInProgress | Stored:
    match kind_of(answer):
        case Kind.UNFINISHED:
            return UploadInProgress()
        case Kind.ALREADY:
            return Stored(details=answer.details())
        case _:
            raise failure(Op.INIT, key, answer)


def _carries(found: Stored, mark: str | None) -> bool:
    """Say whether the mark is that of what was found, or all of it but its epoch."""
    return mark is not None and found.mark is not None and f"{found.mark}/".startswith(f"{mark}/")


def _may_be(found: Stored, listing: Listing | Stored) -> bool:
    """Say whether what stat found may be the unfinished upload of the listing instead of an object."""
    if isinstance(listing, Stored):
        return False
    received_bytes = sum(slice_.size_bytes for slice_ in listing.held)
    return found.size_bytes == received_bytes and listing.size_bytes in {None, received_bytes}
