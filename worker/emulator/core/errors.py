"""Why the store refuses a request. The protocol package maps each reason to the response."""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """The reasons."""

    FOLDER_PATH = auto()  # a file cannot be put at a folder's path
    NO_FOLDER_PATH = auto()
    IN_THE_WAY = auto()  # a file where a folder is to be, or a folder where a file is
    THE_BUCKET_ITSELF = auto()
    NOT_EMPTY = auto()
    PAGE_SIZE = auto()
    PAGE_CONTEXT = auto()
    NOT_FOUND = auto()
    NOT_COMPLETE = auto()  # there is an unfinished upload only
    EXISTS = auto()
    UNFINISHED = auto()  # an upload to this path was begun and not finished
    UNFINISHED_OTHER_DIGEST = auto()
    NO_SESSION = auto()
    SESSION_UNKNOWN = auto()
    SLICE_SIZE = auto()
    OFFSET = auto()
    SLICE_TOO_SHORT = auto()
    SLICE_TOO_LONG = auto()
    OUT_OF_ORDER = auto()
    SLICE_DIFFERS = auto()  # from the bytes that are there
    SIZE_DIFFERS = auto()  # slices are missing, or the client names another size
    NO_DIGEST = auto()
    DIGEST_DIFFERS = auto()


class StorageError(Exception):
    """The store does not do it; nothing was changed.

    Args:
        why: the reason.
        detail: what exactly was wrong, if there is more to say.
    """

    def __init__(self, why: Reason, detail: str = "") -> None:
        self.why = why
        self.detail = detail
        super().__init__(f"{why.name} {detail}".strip())
