"""The bytes of the file in a request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.emulator.core.disk import TempFile


@dataclass(slots=True)
class Content:
    """The bytes of the file in a request: a range of a staging buffer, or a temporary file if they are many."""

    size_bytes: int = 0
    view: memoryview = field(default_factory=lambda: memoryview(b""))
    temp_file: TempFile | None = None

    def sha1(self) -> str:
        """Lower-case hex digest of the bytes."""
        return self.temp_file.sha1() if self.temp_file else hashlib.sha1(self.view).hexdigest()  # noqa: S324 - the protocol's

    def whole(self) -> memoryview:
        """The bytes in memory, also those of a slice in a temporary file (a large one, or one sent twice)."""
        return memoryview(self.temp_file.read()) if self.temp_file else self.view

    def corrupt(self) -> None:
        """Inverts the first byte, if there is one."""
        if self.temp_file is not None:
            self.temp_file.corrupt()
        elif self.view:
            self.view[0] ^= 0xFF

    def md5(self) -> str:
        """Lower-case hex digest of the bytes of a slice."""
        return hashlib.md5(self.whole()).hexdigest()  # noqa: S324 - the protocol's

    def discard(self) -> None:
        """Releases the bytes."""
        self.view.release()
        if self.temp_file is not None:
            self.temp_file.discard()
