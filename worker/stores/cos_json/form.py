"""multipart/form-data for the COS JSON API: an unquoted boundary, a known length, and no copy of the file's bytes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PIECE_BYTES = 256 * 1024
"""A stop ends the request between two pieces: within 4 s at 64 KiB/s, the default `low_speed_bytes_per_s`."""


class Form:
    """A form that can be sent several times: scalars in the given order, then the file's bytes, if any.

    Attributes:
        content_offset_bytes: where in the body the file's bytes begin.
        content_type: the header's value.
        length_bytes: of the whole body.
    """

    def __init__(
        self, fields: Sequence[tuple[str, str]], content: memoryview | None = None, boundary: str | None = None
    ) -> None:
        mark = boundary or f"sliceway-{secrets.token_hex(16)}"
        head, tail = "".join([_scalar(mark, name, value) for name, value in fields]), f"--{mark}--\r\n"
        self._content = content.cast("B") if content is not None else None
        if content is not None:
            head += (
                f"--{mark}\r\n"
                'Content-Disposition: form-data; name="filecontent"; filename="filecontent"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            )
            tail = f"\r\n{tail}"
        self._head, self._tail = head.encode(), tail.encode()
        self.content_offset_bytes = len(self._head)
        self.content_type = f"multipart/form-data; boundary={mark}"
        self.length_bytes = len(self._head) + (content.nbytes if content is not None else 0) + len(self._tail)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the body: the scalars, views into the caller's buffer, the end."""
        yield self._head
        if self._content is not None:
            for start in range(0, len(self._content), PIECE_BYTES):
                yield self._content[start : start + PIECE_BYTES]
        yield self._tail


def _scalar(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
