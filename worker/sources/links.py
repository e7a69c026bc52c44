"""Follow symbolic links below a folder, and never out of it, not even to come back.

The kernel would say `no such file`, `permission denied` or `not a folder` of what a link outside leads to, and follow
one that comes back in: each tells whether something is there. `openat2` with `RESOLVE_BENEATH` is no way: Python does
not have it, older container engines refuse it, and it refuses absolute links that stay inside.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LINKS_MAX = 40  # as Linux has it
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """A link leads out of the folder."""


def open_beneath(base: int, path: str, names: Sequence[str]) -> int:
    """Return an `O_PATH` handle of what the path leads to, which the caller closes.

    Args:
        base: a handle of the folder, which stays open.
        path: relative to the folder.
        names: absolute paths of the folder, which absolute links may begin with.

    Raises:
        LeadsOut: a link leaves the folder, whatever it leads to.
        OSError: there is nothing inside, or too many links.
    """
    walk = _Walk(base)
    links = 0
    try:
        ahead = _steps(path)
        while ahead:
            name = ahead.pop()
            if name in {".", ".."}:
                (walk.stay if name == "." else walk.leave)()
            elif (text := walk.enter(name)) is not None:
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if text.startswith("/"):
                    text = _inside(text, names)
                    walk.restart()
                ahead += _steps(text)
        return walk.take()
    finally:
        walk.close()


class _Walk:
    """The folders from the first one to the place that was reached, as handles."""

    def __init__(self, base: int) -> None:
        self._handles = [os.dup(base)]

    def enter(self, name: str) -> str | None:
        """Go down to what has this name; returns the text of a link, which is not entered."""
        handle = os.open(name, _STEP, dir_fd=self._handles[-1])
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            self._handles.append(handle)
            return None
        try:
            return os.readlink("", dir_fd=handle)  # of the handle, not of the name again
        finally:
            os.close(handle)

    def leave(self) -> None:
        """Go up."""
        if len(self._handles) == 1:
            raise LeadsOut
        self.stay()
        os.close(self._handles.pop())

    def stay(self) -> None:
        """Find a folder at the place that was reached."""
        if not stat.S_ISDIR(os.fstat(self._handles[-1]).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def restart(self) -> None:
        """Go back to the first folder."""
        while len(self._handles) > 1:
            os.close(self._handles.pop())

    def take(self) -> int:
        """Return the handle of the place that was reached."""
        return self._handles.pop()

    def close(self) -> None:
        """Close the others."""
        for handle in self._handles:
            os.close(handle)


def _steps(path: str) -> list[str]:
    """Return the names on the way, the last one first; behind a slash at the end there must be a folder."""
    names = [name for name in reversed(path.split("/")) if name not in {"", "."}]
    return [".", *names] if path.endswith(("/", "/.")) else names


def _inside(text: str, names: Sequence[str]) -> str:
    """Return the rest of an absolute link behind a name of the folder."""
    for name in names:
        prefix = name.rstrip("/") + "/"
        if f"{text}/".startswith(prefix):
            return text[len(prefix) :]
    raise LeadsOut
