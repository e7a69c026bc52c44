"""Where the bytes of a job come from, behind one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

Fingerprint = dict[str, Any]
"""What makes a source the same source: JSON; read by its own kind only."""


class Source(Protocol):
    """An opened source. A context manager; used by one thread.

    Every call may raise any `SourceError`.
    """

    size_bytes: int
    fingerprint: Fingerprint

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill the whole buffer with the bytes from the offset on.

        Raises:
            SourceChanged: the file is shorter than it was, or is not the same any more (looked at after reading).
        """

    def check(self) -> None:
        """Look again whether the source is still what its fingerprint says.

        Raises:
            SourceChanged: it is not.
            SourceGone: it is no longer there.
        """

    def close(self) -> None:
        """Let go of it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
