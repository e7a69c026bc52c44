"""One key of a COS JSON store as a value: what each request does to it, and what it answers.

Told again from the protocol, without a line of the emulator or of the driver; `test_explorer.py` holds it against the
emulator. Beside what a store knows, it remembers what the laws ask about: whose things were touched.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

Data = dict[str, Any]
OURS, THEIRS = "ours", "theirs"
SHOWN = {"access_url": "http://store/key"}
NOT_THERE, EXISTS, UNFINISHED, OTHER_UNFINISHED, NO_SESSION, INCOMPLETE, DIFFERS = (
    -197,
    -177,
    -4019,
    -4020,
    -4013,
    -175,
    -4026,
)
NO_SHA, OTHER_SHA, WRONG_SHA = -29094, -174, -4016


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload: whose, under which wishes, and the slices that have come (offset -> bytes)."""

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

    def may_be_gone_on_with(self, owner: str, sha: str) -> bool:
        """Whoever did not begin it must know its content, which only a digest tells."""
        return self.owner == owner or (self.sha != "" and self.sha == sha)


@dataclass(frozen=True, slots=True)
class Thing:
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
        due: the bytes of our file.
        named: lists name the digest that an upload was begun with.
        thing: the object there.
        upload: the unfinished upload there; the protocol knows one a path.
        begun: uploads ever begun; gives each session its name.
        finished: the attributes (with the mark) of each of our uploads that a finish has published, in order.
        ours_seen: whether our content ever was the object.
        unseen: somebody put an object there since we last looked.
        harm: what we did that nobody may, in words; empty if nothing.
    """

    slice_bytes: int
    due: bytes = b""
    named: bool = True
    thing: Thing | None = None
    upload: Upload | None = None
    begun: int = 0
    finished: tuple[str, ...] = ()
    ours_seen: bool = False
    unseen: bool = False
    harm: str = ""


Outcome = tuple[Store, int, Data | None]


def respond(store: Store, op: str, fields: Data, content: bytes, owner: str = OURS) -> Outcome:
    """Let a request take effect; return the store after it, the code of its answer, and the answer's data."""
    return _OPERATIONS[op](store, fields, content, owner)


def _init(store: Store, fields: Data, _content: bytes, owner: str) -> Outcome:
    insert_only, sha, there = fields.get("insertOnly") != "0", fields.get("sha", ""), store.thing
    size, attributes = int(fields["filesize"]), fields.get("biz_attr", "")
    same = there is not None and sha != "" and (there.sha, len(there.content)) == (sha, size)
    if there is not None and insert_only:
        return (store, 0, SHOWN) if same else (store, EXISTS, None)
    if store.upload is not None:
        other = sha and store.upload.sha and sha != store.upload.sha
        return store, OTHER_UNFINISHED if other else UNFINISHED, None
    if there is not None and same:  # the bytes are here: an object of its own comes to be of them
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
    guilty = not upload.may_be_gone_on_with(owner, sha)
    return _blamed(replace(store, upload=grown), guilty, "sent a slice into another's upload"), 0, echo


def _list(store: Store, _fields: Data, _content: bytes, _owner: str) -> Outcome:
    if store.upload is None:
        return (store, NOT_THERE, None) if store.thing is None else (store, 0, SHOWN)
    upload = store.upload
    parts = [{"offset": offset, "datalen": len(content)} for offset, content in upload.held]
    data = {"session": upload.session, "slice_size": upload.slice_bytes, "filesize": upload.size_bytes}
    return store, 0, data | {"listparts": parts} | ({"sha": upload.sha} if upload.sha and store.named else {})


def _finish(store: Store, fields: Data, _content: bytes, owner: str) -> Outcome:
    upload, thing, sha = store.upload, store.thing, fields.get("sha", "")
    if thing is not None and thing.session and thing.session == fields["session"]:
        return store, 0, SHOWN
    if upload is None or upload.session != fields["session"]:
        return store, NO_SESSION, None
    if upload.received_bytes != upload.size_bytes or int(fields["filesize"]) != upload.size_bytes:
        return store, INCOMPLETE, None
    content = b"".join(content for _, content in upload.held)
    if upload.sha and not upload.sha == sha == sha_of(content):
        return store, WRONG_SHA if sha else NO_SHA, None
    if thing is not None and upload.insert_only:
        return store, EXISTS, None
    made = Thing(upload.owner, content, upload.attributes, upload.session, upload.sha)
    finished = (*store.finished, upload.attributes) if upload.owner == OURS else store.finished
    after = _published(replace(store, upload=None, finished=finished), made)
    after = _blamed(after, not upload.may_be_gone_on_with(owner, sha), "finished another's upload")
    return _blamed(after, owner == OURS and content != store.due, "published other bytes than the file's"), 0, SHOWN


def _whole(store: Store, fields: Data, content: bytes, owner: str) -> Outcome:
    thing, insert_only = store.thing, fields.get("insertOnly") != "0"
    if thing is not None and insert_only:
        same = bool(thing.sha) and (thing.sha, len(thing.content)) == (fields.get("sha", ""), len(content))
        return (store, 0, SHOWN) if same else (store, EXISTS, None)
    made = Thing(owner, content, fields.get("biz_attr", ""), sha=fields.get("sha", ""))
    return _published(store, made), 0, SHOWN


def _stat(store: Store, _fields: Data, _content: bytes, owner: str) -> Outcome:
    after = replace(store, unseen=False) if owner == OURS else store
    if store.thing is not None:
        size = len(store.thing.content)
        told = {"filesize": size, "filelen": size, "biz_attr": store.thing.attributes, "sha": store.thing.sha}
    elif store.upload is not None:
        upload = store.upload
        told = {"filesize": upload.size_bytes, "filelen": upload.received_bytes, "biz_attr": upload.attributes}
    else:
        return after, NOT_THERE, None
    return after, 0, SHOWN | told


def _delete(store: Store, _fields: Data, _content: bytes, owner: str) -> Outcome:
    if store.thing is None and store.upload is None:
        return store, NOT_THERE, None
    taken = store.thing is not None and store.thing.owner != owner and not store.unseen
    return _blamed(replace(store, thing=None, upload=None), taken, "deleted another's object"), 0, None


def _published(store: Store, made: Thing) -> Store:
    ours = made.owner == OURS or made.content == store.due
    return replace(store, thing=made, ours_seen=store.ours_seen or ours, unseen=store.unseen or not ours)


def _blamed(store: Store, guilty: bool, what: str) -> Store:
    return replace(store, harm=what) if guilty else store


def strange(store: Store, deed: str, content: bytes) -> Store:
    """Let another client act at the key; see `explorer_state.Stranger`. ``content``: what it uploads."""
    if deed == "begin same":
        content = store.due
    theirs: Data = {"biz_attr": "theirs", "insertOnly": "0", "filesize": len(content)}
    if deed == "put":
        return respond(store, "upload", theirs | {"sha": sha_of(content)}, content, THEIRS)[0]
    if deed != "finish":
        named = {"sha": sha_of(content)} if deed in {"begin named", "begin same"} else {}
        sent = content if deed == "begin" else content[: store.slice_bytes]
        return _begin(store, theirs | named, sent)
    if store.upload is None or store.upload.owner != THEIRS:
        return store
    finish = theirs | {"session": store.upload.session, "sha": store.upload.sha}
    return respond(store, "upload_slice_finish", finish, b"", THEIRS)[0]


def _begin(store: Store, theirs: Data, sent: bytes) -> Store:
    """Let another client begin an upload and send its first bytes, if the store lets it."""
    begun, code, data = respond(store, "upload_slice_init", theirs, b"", THEIRS)
    if code or data is None or "session" not in data:
        return begun
    for offset in range(0, len(sent), store.slice_bytes):
        fields = {"session": data["session"], "offset": offset, "sha": theirs.get("sha", "")}
        begun = respond(begun, "upload_slice_data", fields, sent[offset : offset + store.slice_bytes], THEIRS)[0]
    return begun


def sha_of(content: bytes) -> str:
    """Return what a one-request upload tells of its bytes."""
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
