"""A model of one key of a COS JSON store, as a value: the effect of each request, and its answer.

It is written from the protocol and shares no code with the emulator or the driver; `test_explorer.py` compares it with
the emulator. Beside the state of a store it records what the invariants ask about: whether we touched foreign objects.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

Data = dict[str, Any]
OURS, THEIRS = "ours", "theirs"
SHOWN = {"access_url": "http://store/key"}
NOT_THERE, EXISTS, INCOMPLETE, OTHER_SHA = -197, -177, -175, -174
UNFINISHED, OTHER_UNFINISHED, NO_SESSION, DIFFERS, WRONG_SHA, NO_SHA = -4019, -4020, -4013, -4026, -4016, -29094


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload: its owner, its parameters, and the slices received (offset -> bytes)."""

    session: str
    owner: str
    size_bytes: int
    slice_bytes: int
    attributes: str
    insert_only: bool
    sha: str = ""
    held: tuple[tuple[int, bytes], ...] = ()

    @property
    def received_bytes(self) -> int:
        return sum(len(content) for _, content in self.held)

    def may_be_continued(self, owner: str, sha: str) -> bool:
        """Say whether a client may continue it: a client that did not begin it must know its digest."""
        return self.owner == owner or (self.sha != "" and self.sha == sha)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A complete object."""

    owner: str
    content: bytes
    attributes: str
    session: str = ""
    sha: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """The key.

    Attributes:
        expected: the bytes of our file.
        named: lists contain the digest that an upload was begun with.
        object_there: the object at the key.
        upload: the unfinished upload at the key; the protocol has one a path.
        begun: how many uploads were ever begun; numbers the sessions.
        finished: the attributes (with the mark) of each of our uploads that a finish has published, in order.
        ours_seen: whether our content ever was the object.
        changed_unseen: another client put an object there since our last stat.
        violation: what we did that no client may do; empty if nothing.
    """

    slice_bytes: int
    expected: bytes = b""
    named: bool = True
    object_there: StoredObject | None = None
    upload: Upload | None = None
    begun: int = 0
    finished: tuple[str, ...] = ()
    ours_seen: bool = False
    changed_unseen: bool = False
    violation: str = ""


Outcome = tuple[Store, int, Data | None]


def respond(store: Store, op: str, fields: Data, content: bytes, owner: str = OURS) -> Outcome:
    """Execute a request; return the store after it, the code of its answer, and the answer's data."""
    return _OPERATIONS[op](store, fields, content, owner)


def _init(store: Store, fields: Data, _content: bytes, owner: str) -> Outcome:
    insert_only, sha, there = fields.get("insertOnly") != "0", fields.get("sha", ""), store.object_there
    size, attributes = int(fields["filesize"]), fields.get("biz_attr", "")
    same = there is not None and sha != "" and (there.sha, len(there.content)) == (sha, size)
    if there is not None and insert_only:
        return (store, 0, SHOWN) if same else (store, EXISTS, None)
    if store.upload is not None:
        other = sha and store.upload.sha and sha != store.upload.sha
        return store, OTHER_UNFINISHED if other else UNFINISHED, None
    if there is not None and same:  # the store has the bytes and makes an object of them
        return _published(store, replace(there, owner=owner, attributes=attributes, session="")), 0, SHOWN
    session = f"session-{store.begun + 1}"
    upload = Upload(session, owner, size, store.slice_bytes, attributes, insert_only, sha)
    after = replace(store, upload=upload, begun=store.begun + 1)
    return after, 0, {"session": session, "slice_size": store.slice_bytes}


def _data(store: Store, fields: Data, content: bytes, owner: str) -> Outcome:
    upload, offset, sha = store.upload, int(fields["offset"]), fields.get("sha", "")
    if upload is None or upload.session != fields["session"]:
        return store, NO_SESSION, None
    if sha and upload.sha and sha != upload.sha:
        return store, OTHER_SHA, None
    echo = {"session": upload.session, "offset": offset, "datalen": len(content)}
    held = dict(upload.held)
    if offset in held:
        return (store, 0, echo) if held[offset] == content else (store, DIFFERS, None)
    grown = replace(upload, held=tuple(sorted((held | {offset: content}).items())))
    violated = not upload.may_be_continued(owner, sha)
    return _record(replace(store, upload=grown), violated, "sent a slice into another client's upload"), 0, echo


def _list(store: Store, _fields: Data, _content: bytes, _owner: str) -> Outcome:
    if store.upload is None:
        return (store, NOT_THERE, None) if store.object_there is None else (store, 0, SHOWN)
    upload = store.upload
    parts = [{"offset": offset, "datalen": len(content)} for offset, content in upload.held]
    data = {"session": upload.session, "slice_size": upload.slice_bytes, "filesize": upload.size_bytes}
    return store, 0, data | {"listparts": parts} | ({"sha": upload.sha} if upload.sha and store.named else {})


def _finish(store: Store, fields: Data, _content: bytes, owner: str) -> Outcome:
    upload, there, sha = store.upload, store.object_there, fields.get("sha", "")
    if there is not None and there.session and there.session == fields["session"]:
        return store, 0, SHOWN
    if upload is None or upload.session != fields["session"]:
        return store, NO_SESSION, None
    if upload.received_bytes != upload.size_bytes or int(fields["filesize"]) != upload.size_bytes:
        return store, INCOMPLETE, None
    content = b"".join(content for _, content in upload.held)
    if upload.sha and not upload.sha == sha == sha_of(content):
        return store, WRONG_SHA if sha else NO_SHA, None
    if there is not None and upload.insert_only:
        return store, EXISTS, None
    made = StoredObject(upload.owner, content, upload.attributes, upload.session, upload.sha)
    finished = (*store.finished, upload.attributes) if upload.owner == OURS else store.finished
    after = _published(replace(store, upload=None, finished=finished), made)
    after = _record(after, not upload.may_be_continued(owner, sha), "finished another client's upload")
    wrong = owner == OURS and content != store.expected
    return _record(after, wrong, "published other bytes than the file's"), 0, SHOWN


def _whole(store: Store, fields: Data, content: bytes, owner: str) -> Outcome:
    there, insert_only = store.object_there, fields.get("insertOnly") != "0"
    if there is not None and insert_only:
        same = bool(there.sha) and (there.sha, len(there.content)) == (fields.get("sha", ""), len(content))
        return (store, 0, SHOWN) if same else (store, EXISTS, None)
    made = StoredObject(owner, content, fields.get("biz_attr", ""), sha=fields.get("sha", ""))
    return _published(store, made), 0, SHOWN


def _stat(store: Store, _fields: Data, _content: bytes, owner: str) -> Outcome:
    after = replace(store, changed_unseen=False) if owner == OURS else store
    there, upload = store.object_there, store.upload
    if there is not None:
        size = len(there.content)
        return after, 0, SHOWN | {"filesize": size, "filelen": size, "biz_attr": there.attributes, "sha": there.sha}
    if upload is not None:
        sizes = {"filesize": upload.size_bytes, "filelen": upload.received_bytes}
        return after, 0, SHOWN | sizes | {"biz_attr": upload.attributes}
    return after, NOT_THERE, None


def _delete(store: Store, _fields: Data, _content: bytes, owner: str) -> Outcome:
    there = store.object_there
    if there is None and store.upload is None:
        return store, NOT_THERE, None
    foreign = there is not None and there.owner != owner and not store.changed_unseen
    return _record(replace(store, object_there=None, upload=None), foreign, "deleted another client's object"), 0, None


def _published(store: Store, made: StoredObject) -> Store:
    ours = made.owner == OURS or made.content == store.expected
    seen, unseen = store.ours_seen or ours, store.changed_unseen or not ours
    return replace(store, object_there=made, ours_seen=seen, changed_unseen=unseen)


def _record(store: Store, violated: bool, what: str) -> Store:
    return replace(store, violation=what) if violated else store


def act_as_other_client(store: Store, action: str, content: bytes) -> Store:
    """Let another client act at the key, see `state.ForeignAction`; ``content`` is what it uploads."""
    if action == "begin same":
        content = store.expected
    theirs: Data = {"biz_attr": "theirs", "insertOnly": "0", "filesize": len(content)}
    if action == "put":
        return respond(store, "upload", theirs | {"sha": sha_of(content)}, content, THEIRS)[0]
    if action != "finish":
        named = {"sha": sha_of(content)} if action in {"begin named", "begin same"} else {}
        sent = content if action == "begin" else content[: store.slice_bytes]
        return _begin(store, theirs | named, sent)
    if store.upload is None or store.upload.owner != THEIRS:
        return store
    finish = theirs | {"session": store.upload.session, "sha": store.upload.sha}
    return respond(store, "upload_slice_finish", finish, b"", THEIRS)[0]


def _begin(store: Store, theirs: Data, sent: bytes) -> Store:
    """Let another client begin an upload and send its first bytes, if the store accepts it."""
    begun, code, data = respond(store, "upload_slice_init", theirs, b"", THEIRS)
    if code or data is None or "session" not in data:
        return begun
    for offset in range(0, len(sent), store.slice_bytes):
        fields = {"session": data["session"], "offset": offset, "sha": theirs.get("sha", "")}
        begun = respond(begun, "upload_slice_data", fields, sent[offset : offset + store.slice_bytes], THEIRS)[0]
    return begun


def sha_of(content: bytes) -> str:
    """Return the digest that an upload gives of its bytes."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


_OPERATIONS = {
    "upload_slice_init": _init,
    "upload_slice_data": _data,
    "upload_slice_list": _list,
    "upload_slice_finish": _finish,
    "upload": _whole,
    "stat": _stat,
    "delete": _delete,
}
