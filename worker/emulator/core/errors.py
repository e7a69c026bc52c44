"""The error of the core. The protocol package maps each reason to a response."""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """Why the core refuses a request."""

    FOLDER_PATH = auto()  # a file cannot be put at a folder's path
    NOT_A_FOLDER_PATH = auto()  # a folder's path ends with a slash
    PATH_CONFLICT = auto()  # a file and a folder would have the same name
    BUCKET_ROOT = auto()
    NOT_EMPTY = auto()
    PAGE_SIZE = auto()
    PAGE_CONTEXT = auto()
    NOT_FOUND = auto()
    NOT_COMPLETE = auto()  # only an unfinished upload exists
    EXISTS = auto()
    UPLOAD_IN_PROGRESS = auto()
    UPLOAD_IN_PROGRESS_OTHER_DIGEST = auto()
    NO_SESSION = auto()
    SESSION_UNKNOWN = auto()
    SLICE_SIZE = auto()
    OFFSET = auto()
    SLICE_TOO_SHORT = auto()
    SLICE_TOO_LONG = auto()
    OUT_OF_ORDER = auto()
    SLICE_DIFFERS = auto()  # from the bytes received before
    SIZE_DIFFERS = auto()  # slices are missing, or the client sends another size
    NO_DIGEST = auto()
    DIGEST_DIFFERS = auto()


class StorageError(Exception):
    """The core refuses the request. The store is unchanged, unless `Uploads.finish` says otherwise.

    Args:
        reason: Why the core refuses.
        detail: The cause, if the reason does not say it all.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.name} {detail}".strip())
