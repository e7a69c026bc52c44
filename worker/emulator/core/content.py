"""The bytes that a request brings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.emulator.core.disk import Draft


@dataclass(slots=True)
class Content:
    """The bytes that a request brings: a range of a staging buffer, or a draft on disk when they are many."""

    size_bytes: int = 0
    view: memoryview = field(default_factory=lambda: memoryview(b""))
    draft: Draft | None = None

    def sha1(self) -> str:
        """Lower-case hex digest of the bytes."""
        return self.draft.sha1() if self.draft else hashlib.sha1(self.view).hexdigest()  # noqa: S324 - the protocol's

    def whole(self) -> memoryview:
        """The bytes in memory: a slice may be larger than the staging buffer, or have come twice."""
        return memoryview(self.draft.read()) if self.draft else self.view

    def spoil(self) -> None:
        """Changes the first byte, if there is one."""
        if self.draft is not None:
            self.draft.spoil()
        elif self.view:
            self.view[0] ^= 0xFF

    def md5(self) -> str:
        """Lower-case hex digest of the bytes of a slice."""
        return hashlib.md5(self.whole()).hexdigest()  # noqa: S324 - the protocol's

    def discard(self) -> None:
        """Lets go of the bytes."""
        self.view.release()
        if self.draft is not None:
            self.draft.discard()
