"""The protocol of a source: where the bytes of a job come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

SourceDocument = dict[str, Any]
"""What a job says of its source: JSON, of which only its own kind reads more than `kind` and `root`."""
Fingerprint = dict[str, Any]
"""JSON by which a source recognises that it is unchanged; only its own kind reads it."""


class Source(Protocol):
    """An open source. A context manager. One thread uses it.

    Every call may raise any `SourceError`.
    """

    size_bytes: int
    fingerprint: Fingerprint

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill the whole buffer with the bytes from the offset on.

        Raises:
            SourceChanged: the source is shorter than it was, or differs from its fingerprint after the read.
        """

    def verify_unchanged(self) -> None:
        """Compare the source with its fingerprint.

        Raises:
            SourceChanged: it differs.
            SourceGone: it is no longer there.
        """

    def close(self) -> None:
        """Close the source."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
