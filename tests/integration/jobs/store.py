"""The store of the model test: the sessions of each key, and which content their slices have."""

from __future__ import annotations

from dataclasses import dataclass, field

FILE, OTHER = "the file", "other content"


@dataclass
class Upload:
    """An upload: its session, the content of each slice, and whether the store's list names our file's digest."""

    session: str
    names_ours: bool = False
    content: dict[int, str] = field(default_factory=dict)


@dataclass
class Store:
    """The one unfinished upload of each key, and every upload by its session."""

    unfinished: dict[str, Upload] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def begin(self, key: str, *, names_ours: bool = False) -> Upload:
        """Begin an upload; it replaces the unfinished one of the key."""
        upload = Upload(f"s-{len(self.uploads) + 1}", names_ours)
        self.unfinished[key] = self.uploads[upload.session] = upload
        return upload

    def begin_foreign(self, key: str, number: int, *, names_ours: bool) -> None:
        """Begin an upload as another client, and send a slice: of our file, if the list names our digest."""
        self.begin(key, names_ours=names_ours).content[number] = FILE if names_ours else OTHER

    def put(self, session: str, number: int) -> bool:
        """Send a slice as our worker; the store refuses it where it has other bytes."""
        return self.uploads[session].content.setdefault(number, FILE) == FILE

    def listed(self, key: str, session: str) -> set[int]:
        """Return the slices of a session in the store's list."""
        upload = self.unfinished.get(key)
        return set(upload.content) if upload is not None and upload.session == session else set()
