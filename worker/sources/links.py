"""Follow symbolic links below a folder, and never out of it, not even to come back in.

For a link that leads out, the kernel would report `no such file`, `permission denied` or `not a folder`, and follow it
if it comes back in. Each of these reveals what is outside. `openat2` with `RESOLVE_BENEATH` cannot be used: Python does
not offer it, older container engines refuse it, and it refuses absolute links that stay inside.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_LINKS = 40  # the limit of Linux
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """A link leads out of the folder."""


def open_beneath(base: int, path: str, names: Sequence[str]) -> int:
    """Return an `O_PATH` handle of what the path leads to, which the caller closes.

    Args:
        base: a handle of the folder; stays open.
        path: relative to the folder.
        names: the absolute paths of the folder; an absolute link inside begins with one of them.

    Raises:
        LeadsOut: a link leaves the folder.
        OSError: nothing is at the path, or it has too many links.
    """
    walk = _Walk(base)
    links = 0
    try:
        remaining = _steps(path)
        while remaining:
            name = remaining.pop()
            if name in {".", ".."}:
                (walk.stay if name == "." else walk.leave)()
            elif (text := walk.enter(name)) is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if text.startswith("/"):
                    text = _inside(text, names)
                    walk.restart()
                remaining += _steps(text)
        return walk.take()
    finally:
        walk.close()


class _Walk:
    """Handles of the folders from the first one to the current place."""

    def __init__(self, base: int) -> None:
        self._handles = [os.dup(base)]

    def enter(self, name: str) -> str | None:
        """Go down to this name; if it is a link, return its text instead."""
        handle = os.open(name, _STEP, dir_fd=self._handles[-1])
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            self._handles.append(handle)
            return None
        try:
            return os.readlink("", dir_fd=handle)  # of the handle, not of the name again
        finally:
            os.close(handle)

    def leave(self) -> None:
        """Go up to the parent."""
        if len(self._handles) == 1:
            raise LeadsOut
        self.stay()
        os.close(self._handles.pop())

    def stay(self) -> None:
        """Require that the current place is a folder."""
        if not stat.S_ISDIR(os.fstat(self._handles[-1]).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def restart(self) -> None:
        """Go back to the first folder."""
        while len(self._handles) > 1:
            os.close(self._handles.pop())

    def take(self) -> int:
        """Return the handle of the current place, which the caller closes."""
        return self._handles.pop()

    def close(self) -> None:
        """Close all handles that were not taken."""
        for handle in self._handles:
            os.close(handle)


def _steps(path: str) -> list[str]:
    """Return the names of a path, the last one first; after a trailing slash "." requires a folder."""
    names = [name for name in reversed(path.split("/")) if name not in {"", "."}]
    return [".", *names] if path.endswith(("/", "/.")) else names


def _inside(text: str, names: Sequence[str]) -> str:
    """Return an absolute link relative to the folder."""
    for name in names:
        prefix = name.rstrip("/") + "/"
        if f"{text}/".startswith(prefix):
            return text[len(prefix) :]
    raise LeadsOut
