"""What a store holds under each key while the machine walks: sessions, and whose bytes are in their slices."""

from __future__ import annotations

from dataclasses import dataclass, field

FILE, OTHER = "the file", "other content"


@dataclass
class Upload:
    """An upload: its session, what has come of each slice, and whether the list names the digest of our file."""

    session: str
    names_ours: bool = False
    content: dict[int, str] = field(default_factory=dict)


@dataclass
class Store:
    """The one unfinished upload of each key, and every upload that there ever was."""

    at: dict[str, Upload] = field(default_factory=dict)
    ever: dict[str, Upload] = field(default_factory=dict)

    def begin(self, key: str, *, names_ours: bool = False) -> Upload:
        """Begin an upload in the place of whatever is there."""
        upload = Upload(f"s-{len(self.ever) + 1}", names_ours)
        self.at[key] = self.ever[upload.session] = upload
        return upload

    def strange(self, key: str, number: int, *, names_ours: bool) -> None:
        """Let another client begin an upload and send a slice: of our file, if its digest is ours."""
        self.begin(key, names_ours=names_ours).content[number] = FILE if names_ours else OTHER

    def put(self, session: str, number: int) -> bool:
        """Let a worker of ours send a slice; it is refused where other bytes have come before."""
        return self.ever[session].content.setdefault(number, FILE) == FILE

    def listed(self, key: str, session: str) -> set[int]:
        """Return the slices that the store's list has of a session."""
        upload = self.at.get(key)
        return set(upload.content) if upload is not None and upload.session == session else set()
