"""A local file below a named root.

A path is first resolved to a bare handle (`O_PATH`), which opens nothing: a FIFO is not joined and no device touched
before the handle has been found to be a regular file inside the root. What is then opened for reading is that handle,
not the path again, so nothing can be swapped in between. Symbolic links are followed as long as they stay inside, by
`worker/sources/links.py`: nothing outside is looked at, so that no answer tells what is there.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Self

from worker.errors import RootUnavailable, SourceChanged, SourceError, SourceGone, SourceRefused
from worker.sources.links import LeadsOut, open_beneath

if TYPE_CHECKING:
    from types import TracebackType

    from worker.config.profiles import RootProfile
    from worker.sources.base import Fingerprint

_WORDS = {"size": "size", "mtime_ns": "modification time", "inode": "identity (it was replaced)"}
_COMPARED = {"strict": 3, "size-mtime": 2}
"""How many of these must be as they were, by the root's `fingerprint`."""
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_NOT_READABLE = frozenset({errno.EACCES, errno.EPERM})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_HERE = frozenset({"", "."})


def open_file(root: RootProfile, path: str, expected: Fingerprint | None = None) -> FileSource:
    """Open a file for reading; with ``expected``, only if it still is the one that had this fingerprint.

    Raises:
        SourceRefused: the path leaves the root, or names no regular file, or one that may not be read.
        SourceGone: there is no such file in a usable root.
        SourceChanged: it is not the file that was expected.
        RootUnavailable: the root cannot be used here.
    """
    handle, found = _locate(root, path)
    try:
        fd = os.open(_link(handle), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        _fail(root, path, error)
    finally:
        os.close(handle)
    try:
        return FileSource(root, path, fd, found, expected)
    except BaseException:
        os.close(fd)
        raise


def usable(root: RootProfile, base: str | None = None) -> str | None:
    """Return None if files can be read below the root here, else why not, in a few words.

    An empty root counts as unusable: it is what the mount point of a volume that is not mounted looks like. ``base`` is
    where the root is open already.
    """
    try:
        with os.scandir(base or root.path) as entries:
            return None if next(entries, None) else "is empty, as the mount point of an unmounted volume is"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


class FileSource:
    """A `Source` over an open file.

    Its fingerprint is size, modification time and inode. The device is left out: the same volume has other numbers on
    other hosts and after a remount. Below a root with `size-mtime` inodes have, too: kept, but not compared. The time
    is always compared to the nanosecond.
    """

    def __init__(
        self, root: RootProfile, path: str, fd: int, found: os.stat_result, expected: Fingerprint | None
    ) -> None:
        """Take over the open ``fd`` of the file that was found; it stays the caller's if this raises."""
        self._root = root
        self._path = path
        self._fd = fd
        self.fingerprint: Fingerprint = _fingerprint(found) if expected is None else expected
        self._compared = _COMPARED[root.fingerprint]
        self._first = tuple(map(self.fingerprint.get, _WORDS))[: self._compared]
        self._compare(found)
        self.size_bytes = found.st_size

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill the buffer from the offset on; the file is compared with its fingerprint before and after."""
        self._look()
        done, whole = 0, buffer.nbytes
        try:
            # The kernel's own readahead is 128 KiB deep; the whole range is wanted, and wanted now.
            os.posix_fadvise(self._fd, offset_bytes, whole, os.POSIX_FADV_WILLNEED)
            while done < whole:
                got = os.preadv(self._fd, [buffer[done:]], offset_bytes + done)
                if got == 0:
                    raise SourceChanged(f"{self._named}: it ends before byte {offset_bytes + whole}")
                done += got
        except OSError as error:
            _fail(self._root, self._path, error)
        self._look()

    def check(self) -> None:
        """Compare what is at the path now, and what is open here, with the fingerprint."""
        handle, found = _locate(self._root, self._path)
        os.close(handle)
        self._compare(found)
        self._look()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _named(self) -> str:
        return f"{self._root.name}:{self._path}"

    def _look(self) -> None:
        try:
            found = os.fstat(self._fd)
        except OSError as error:
            _fail(self._root, self._path, error)
        self._compare(found)

    def _compare(self, found: os.stat_result) -> None:
        if (found.st_size, found.st_mtime_ns, found.st_ino)[: self._compared] != self._first:
            now = _fingerprint(found)
            changed = [name for name in _WORDS if self.fingerprint.get(name) != now[name]]
            words = ", ".join(_WORDS[name] for name in changed)
            message = f"{self._named}: it is not the file that was opened first, by {words}"
            raise SourceChanged(message, replaced=changed == ["inode"])


def _fingerprint(found: os.stat_result) -> Fingerprint:
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def _locate(root: RootProfile, path: str) -> tuple[int, os.stat_result]:
    """Return an `O_PATH` handle of the regular file at the path, and what it is; the caller closes it."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or _HERE.issuperset(parts) or "\0" in path:
        raise SourceRefused(f"{root.name}:{path!r} is not a path below the root")
    try:
        base = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RootUnavailable(f"root {root.name} ({root.path}) cannot be opened: {error.strerror}") from error
    try:
        handle = _opened(root, path, base)
        try:
            return handle, _approved(root, path, base, handle)
        except BaseException:
            os.close(handle)
            raise
    except (OSError, UnicodeEncodeError) as error:
        _fail(root, path, error, _link(base))  # what it was missed in, and not what is mounted there by now
    finally:
        os.close(base)


def _opened(root: RootProfile, path: str, base: int) -> int:
    """Return a handle of what is at the path: by one call where no link is on the way, else step by step."""
    handle = -1
    with suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=base)
        if _place(handle) == _joined(_place(base), path) and not stat.S_ISLNK(os.fstat(handle).st_mode):
            return handle
    if handle >= 0:
        os.close(handle)
    inside = _place(base)
    if not _leads_to(inside, base):  # "/" then, and every absolute link begins with that
        raise RootUnavailable(f"root {root.name} ({root.path}) was unmounted or moved while a file was being opened")
    try:
        return open_beneath(base, path, (str(root.path), inside))
    except LeadsOut as error:
        raise SourceRefused(f"{root.name}:{path} is a link that leads out of the root") from error


def _joined(base: str, path: str) -> str:
    return "/".join([base.rstrip("/"), *(name for name in path.split("/") if name not in _HERE)])


def _approved(root: RootProfile, path: str, base: int, handle: int) -> os.stat_result:
    """Return what the handle is, if it is a regular file inside the directory that ``base`` is.

    Inside is decided by the kernel's names of both, which mean something only while they lead to both: of a volume that
    was unmounted meanwhile (`umount --lazy`) the names begin at the volume, so that its top is "/" and all is inside.
    The base's name is therefore proven after both were read.
    """
    found = os.fstat(handle)
    if found.st_nlink == 0:
        raise SourceGone(f"{root.name}:{path} was removed while it was being opened")
    inside, place = _place(base), _place(handle)
    if not _leads_to(inside, base):
        raise RootUnavailable(f"root {root.name} ({root.path}) was unmounted or moved while a file was being opened")
    if not f"{place}/".startswith(inside.rstrip("/") + "/"):
        if not _leads_to(place, handle):  # on a volume below the root, or it is being renamed
            raise RootUnavailable(f"{root.name}:{path} was unmounted or moved while it was being opened")
        raise SourceRefused(f"{root.name}:{path} is a link that leads out of the root")
    if not stat.S_ISREG(found.st_mode):
        raise SourceRefused(f"{root.name}:{path} is not a regular file")
    return found


def _leads_to(place: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(place), os.fstat(handle))
    except OSError:
        return False


def _place(handle: int) -> str:
    """Return where an open handle really is, all links resolved, by the kernel's word."""
    return os.readlink(_link(handle))  # noqa: PTH115 - each slice comes here, and a `Path` costs ten times the call


def _link(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _fail(root: RootProfile, path: str, error: OSError | UnicodeEncodeError, base: str | None = None) -> NoReturn:
    raise _mapped(root, path, error, base) from error


def _mapped(root: RootProfile, path: str, error: OSError | UnicodeEncodeError, base: str | None = None) -> SourceError:
    """Say whose fault a failure is: the path's, the file's, or (all else) the volume's, which may come back.

    ``base``: where the root is open.
    """
    named = f"{root.name}:{path}"
    if isinstance(error, UnicodeEncodeError):
        return SourceRefused(f"{root.name}:{path!r} cannot be a file's name")
    if reason := usable(root, base):
        return RootUnavailable(f"root {root.name} ({root.path}) {reason}")
    if error.errno in _ABSENT:
        return SourceGone(f"{named}: there is no such file")
    if error.errno in _NOT_A_FILE:
        return SourceRefused(f"{named}: {error.strerror}")
    if error.errno in _NOT_READABLE:
        advice = "Let the user that the workers run as read it, then retry."
        return SourceRefused(f"{named}: {error.strerror}", code="source_unreadable", advice=advice)
    # EIO, ESTALE, ENXIO, ETIMEDOUT, EMFILE: a volume or host in trouble. A dying disk, a restarted file server and a
    # full table of open files look alike from here; the job waits, and a file gone for good shows at the next opening.
    return RootUnavailable(f"{named} cannot be read now: {error.strerror}")
