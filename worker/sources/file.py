"""A local file below a named root.

A path is first resolved to a handle (`O_PATH`), which does not open the file: no FIFO and no device is opened. If the
handle is a regular file inside the root, the file is opened for reading through the handle. The path is not resolved
again, so the file cannot be replaced in between. `worker/sources/links.py` follows symbolic links that stay inside the
root. It never resolves a path outside, so that no error reveals what is there.
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
    from collections.abc import Mapping
    from types import TracebackType

    from worker.config.profiles import RootProfile
    from worker.sources.base import Fingerprint, SourceDocument

_CHANGES = {"size": "size", "mtime_ns": "modification time", "inode": "identity (it was replaced)"}
_COMPARED = {"strict": 3, "size-mtime": 2}
"""How many of these, the first ones, must be unchanged; by the root's `fingerprint` setting."""
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_NOT_READABLE = frozenset({errno.EACCES, errno.EPERM})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_SAME_FOLDER = frozenset({"", "."})


def open_file_source(
    document: SourceDocument, expected: Fingerprint | None, roots: Mapping[str, RootProfile], worker: str
) -> FileReader:
    """Open the file that a job's source names by `root` and `path`, as `open_file` does.

    Raises:
        RootUnavailable: the worker's stores file has no such root.
    """
    name = document.get("root", "")
    if (root := roots.get(name)) is None:
        raise RootUnavailable(f"root {name!r} is not in the stores file of {worker}")
    return open_file(root, document.get("path", ""), expected)


def open_file(root: RootProfile, path: str, expected: Fingerprint | None = None) -> FileReader:
    """Open a file for reading; with ``expected``, only if the file still has this fingerprint.

    Raises:
        SourceRefused: the path leaves the root, or the file is not regular or not readable.
        SourceGone: the root is usable and has no such file.
        SourceChanged: the file has another fingerprint.
        RootUnavailable: this machine cannot use the root.
    """
    handle, found = _locate(root, path)
    try:
        fd = os.open(_link(handle), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        _fail(root, path, error)
    finally:
        os.close(handle)
    try:
        return FileReader(root, path, fd, found, expected)
    except BaseException:
        os.close(fd)
        raise


def usable(root: RootProfile, base: str | None = None) -> str | None:
    """Return None if files below the root can be read on this machine, else the reason.

    An empty root is unusable: the mount point of an unmounted volume is empty. ``base`` is the path of an open handle
    of the root.
    """
    try:
        with os.scandir(base or root.path) as entries:
            return None if next(entries, None) else "is empty, as the mount point of an unmounted volume is"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


class FileReader:
    """A `Source` over an open file.

    Its fingerprint is size, modification time in nanoseconds, and inode. The device is not part of it: the same volume
    has another number on another host and after a remount. On some file systems the inode changes in the same way. A
    root with the setting `size-mtime` keeps the inode and does not compare it.
    """

    def __init__(
        self, root: RootProfile, path: str, fd: int, found: os.stat_result, expected: Fingerprint | None
    ) -> None:
        """Take over the open ``fd``, unless this raises; ``found`` is the state of the file."""
        self._root = root
        self._path = path
        self._fd = fd
        self.fingerprint: Fingerprint = _fingerprint(found) if expected is None else expected
        self._compared = _COMPARED[root.fingerprint]
        self._expected = tuple(map(self.fingerprint.get, _CHANGES))[: self._compared]
        self._compare(found)
        self.size_bytes = found.st_size

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill the buffer from the offset on; compare the open file with its fingerprint before and after."""
        self._verify_open_file()
        done, total = 0, buffer.nbytes
        try:
            # The kernel by itself reads 128 KiB ahead; the whole range is needed at once.
            os.posix_fadvise(self._fd, offset_bytes, total, os.POSIX_FADV_WILLNEED)
            while done < total:
                got = os.preadv(self._fd, [buffer[done:]], offset_bytes + done)
                if got == 0:
                    raise SourceChanged(f"{self._named}: it ends before byte {offset_bytes + total}")
                done += got
        except OSError as error:
            _fail(self._root, self._path, error)
        self._verify_open_file()

    def verify_unchanged(self) -> None:
        """Compare the file at the path, and the open file, with the fingerprint."""
        handle, found = _locate(self._root, self._path)
        os.close(handle)
        self._compare(found)
        self._verify_open_file()

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

    def _verify_open_file(self) -> None:
        try:
            found = os.fstat(self._fd)
        except OSError as error:
            _fail(self._root, self._path, error)
        self._compare(found)

    def _compare(self, found: os.stat_result) -> None:
        if (found.st_size, found.st_mtime_ns, found.st_ino)[: self._compared] != self._expected:
            now = _fingerprint(found)
            changed = [name for name in _CHANGES if self.fingerprint.get(name) != now[name]]
            reasons = ", ".join(_CHANGES[name] for name in changed)
            message = f"{self._named}: it is not the file that was opened first, by {reasons}"
            raise SourceChanged(message, replaced=changed == ["inode"])


def _fingerprint(found: os.stat_result) -> Fingerprint:
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def _locate(root: RootProfile, path: str) -> tuple[int, os.stat_result]:
    """Return an `O_PATH` handle of the regular file at the path, and its state; the caller closes the handle."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or _SAME_FOLDER.issuperset(parts) or "\0" in path:
        raise SourceRefused(f"{root.name}:{path!r} is not a path below the root")
    try:
        base = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RootUnavailable(f"root {root.name} ({root.path}) cannot be opened: {error.strerror}") from error
    try:
        handle = _open_inside(root, path, base)
        try:
            return handle, _checked_state(root, path, base, handle)
        except BaseException:
            os.close(handle)
            raise
    except (OSError, UnicodeEncodeError) as error:
        _fail(root, path, error, _link(base))  # the root that was searched, not what may be mounted there now
    finally:
        os.close(base)


def _open_inside(root: RootProfile, path: str, base: int) -> int:
    """Return a handle of what is at the path: by one call if the path has no links, else step by step."""
    handle = -1
    with suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=base)
        if _place(handle) == _joined(_place(base), path) and not stat.S_ISLNK(os.fstat(handle).st_mode):
            return handle
    if handle >= 0:
        os.close(handle)
    inside = _place(base)
    if not _leads_to(inside, base):  # ``inside`` is then "/", with which every absolute link begins
        raise RootUnavailable(f"root {root.name} ({root.path}) was unmounted or moved while a file was being opened")
    try:
        return open_beneath(base, path, (str(root.path), inside))
    except LeadsOut as error:
        raise SourceRefused(f"{root.name}:{path} is a link that leads out of the root") from error


def _joined(base: str, path: str) -> str:
    return "/".join([base.rstrip("/"), *(name for name in path.split("/") if name not in _SAME_FOLDER)])


def _checked_state(root: RootProfile, path: str, base: int, handle: int) -> os.stat_result:
    """Return the state of the handle, if it is a regular file inside the directory ``base``.

    The kernel's names of both decide whether the file is inside. The names are valid only while they lead to the two
    handles: after `umount --lazy` the names begin at the volume, so that its top is "/" and every file is inside. The
    name of the base is therefore verified after both names were read.
    """
    found = os.fstat(handle)
    if found.st_nlink == 0:
        raise SourceGone(f"{root.name}:{path} was removed while it was being opened")
    inside, place = _place(base), _place(handle)
    if not _leads_to(inside, base):
        raise RootUnavailable(f"root {root.name} ({root.path}) was unmounted or moved while a file was being opened")
    if not f"{place}/".startswith(inside.rstrip("/") + "/"):
        if not _leads_to(place, handle):  # it is on a volume below the root, or it is being renamed
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
    """Return the kernel's name of an open handle, with all links resolved."""
    return os.readlink(_link(handle))  # noqa: PTH115 - each slice comes here, and a `Path` costs ten times the call


def _link(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _fail(root: RootProfile, path: str, error: OSError | UnicodeEncodeError, base: str | None = None) -> NoReturn:
    raise _mapped(root, path, error, base) from error


def _mapped(root: RootProfile, path: str, error: OSError | UnicodeEncodeError, base: str | None = None) -> SourceError:
    """Return the error for a failure of the path, of the file, or else of the volume, which may recover.

    ``base`` is the path of an open handle of the root.
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
    # EIO, ESTALE, ENXIO, ETIMEDOUT, EMFILE: the volume or the host fails. A broken disk, a restarted file server and a
    # full table of open files look the same. The job waits; a later open finds a file that is really gone.
    return RootUnavailable(f"{named} cannot be read now: {error.strerror}")
