"""The sources that a request may name: a schema for each kind that the workers read (`worker/sources/registry.py`)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.base import JsonBody, Text
from worker.errors import Refused

PATH_MAX_BYTES = 4096
_NO_NAMES = frozenset({"", ".", ".."})


class FileSource(JsonBody):
    """A file below a root that the workers have."""

    kind: Literal["file"]
    root: Annotated[Text, Field(min_length=1, max_length=255)]
    path: Annotated[Text, Field(min_length=1, max_length=4096, description="Relative to the root.")]

    def check(self) -> None:
        """Refuse a path that no worker would open.

        Raises:
            Refused: ``bad_path``.
        """
        if not _NO_NAMES.isdisjoint(self.path.split("/")) or len(self.path.encode()) > PATH_MAX_BYTES:
            raise Refused(
                "source.path does not name a file below its root",
                code="bad_path",
                advice=f"Give a relative path without '.', '..' and empty parts, of at most {PATH_MAX_BYTES} bytes.",
            )

    def document(self) -> dict[str, Any]:
        """Return what the job keeps, for the reader of this kind."""
        return {"kind": self.kind, "root": self.root, "path": self.path}


AnySource = FileSource
"""A second kind makes this a union that `kind` discriminates."""
PLANNED_KINDS = ("url", "body")
KNOWN_FIELDS = frozenset(FileSource.model_fields)
"""The fields of all kinds."""
