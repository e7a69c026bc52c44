"""A root whose files are renamed, replaced by links and unmounted while another thread opens them.

At every moment a read returns bytes of a file of the root, never bytes from outside, or raises a `SourceError`.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from worker.config.profiles import RootProfile
from worker.errors import SourceError
from worker.sources.file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INSIDE, OUTSIDE = b"inside the root", b"not to be read!"
_REFUSED, _AWAY = "source_refused", "root_unavailable"
#: The allowed outcomes of opening each path. No thread changes `file`, and a link that leads out is refused.
ALLOWED = {
    "file": {"read", _AWAY},
    "folder/file": {"read", _AWAY, _REFUSED, "source_gone"},
    "swapped": {"read", _AWAY, _REFUSED, "source_gone"},
    "out": {_AWAY, _REFUSED},
    "through/file": {_AWAY, _REFUSED},
    "folder/../file": {_REFUSED},
}
_DETACH, _BIND = 2, 4096
_libc = ctypes.CDLL(None, use_errno=True)


def mount(folder: Path, source: Path | None = None) -> None:
    """Mount a new file system, or the folder ``source``, over a folder; only root can."""
    at = os.fsencode(folder)
    bind = source is not None and (os.fsencode(source), at, None, _BIND, None)
    if _libc.mount(*(bind or (b"tmpfs", at, b"tmpfs", 0, b"size=1m"))):
        raise OSError(ctypes.get_errno(), f"mount {folder}")


def detach(folder: Path) -> None:
    """Unmount a folder as `umount --lazy` does: open handles stay valid."""
    if _libc.umount2(os.fsencode(folder), _DETACH):
        raise OSError(ctypes.get_errno(), f"unmount {folder}")


class SourceRace:
    """One thread opens and reads files, another changes the root; the seed decides both.

    Args:
        folder: an empty folder; `play` leaves no mount in it.
        seed: of the changes and of the reads.
        mounts: whether the root is a volume that is unmounted and mounted at times; only root can.
    """

    def __init__(self, folder: Path, seed: int, *, mounts: bool) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._root, self._outside = folder / "root", folder / "outside"
        self._volume = folder / "volume" if mounts else self._root
        self._profile = RootProfile(name="media", path=self._root)
        self._mounts, self._seed, self._stopped = mounts, seed, threading.Event()
        self._outside.mkdir()
        (self._outside / "file").write_bytes(OUTSIDE)
        self._fill()
        if mounts:
            self._root.mkdir()
            mount(self._root, self._volume)

    def play(self, *, rounds: int = 0, seconds: float = 0.0) -> None:
        """Open files ``rounds`` times, and at least for ``seconds``."""
        changer = threading.Thread(target=self._change)
        changer.start()
        try:
            rng, until_s = random.Random(self._seed), time.monotonic() + seconds
            while rounds > 0 or time.monotonic() < until_s:
                self._read(rng.choice(list(ALLOWED)))
                rounds -= 1
        finally:
            self._stopped.set()
            changer.join()
            if self._mounts:
                detach(self._root)

    def _read(self, path: str) -> None:
        outcome, buffer = "read", bytearray(len(INSIDE))
        try:
            with open_file(self._profile, path) as source:
                source.read_into(memoryview(buffer), 0)
        except SourceError as error:
            outcome = error.code
        else:
            if buffer != INSIDE:
                self.wrong[f"{path} returned {bytes(buffer)!r}"] += 1
        self.outcomes[outcome] += 1
        if outcome not in ALLOWED[path]:
            self.wrong[f"{path}: {outcome}"] += 1

    def _fill(self) -> None:
        (self._volume / "folder").mkdir(parents=True)
        for name in ("file", "folder/file"):
            (self._volume / name).write_bytes(INSIDE)
        for name, target in (("out", self._outside / "file"), ("through", self._outside)):
            (self._volume / name).symlink_to(target)

    def _change(self) -> None:
        changes: list[Callable[[], None]] = [self._link_file, self._link_folder, self._move_out]
        if self._mounts:
            changes += [self._remount] * 3
        rng = random.Random(~self._seed)
        while not self._stopped.is_set():
            rng.choice(changes)()

    def _link_file(self) -> None:
        """Replace a file by a link to a file outside, and the link by a file."""
        link, file, at = self._volume / "link.new", self._volume / "file.new", self._volume / "swapped"
        file.write_bytes(INSIDE)
        file.replace(at)
        link.symlink_to(self._outside / "file")
        link.replace(at)

    def _link_folder(self) -> None:
        """Replace a folder by a link that leads out, for a moment."""
        folder, away = self._volume / "folder", self._volume / "away"
        folder.rename(away)
        folder.symlink_to(self._outside)
        folder.unlink()
        away.rename(folder)

    def _move_out(self) -> None:
        """Move a folder out of the root and back, within one file system."""
        away = self._outside / "moved"
        with suppress(OSError):
            (self._volume / "folder").rename(away)
        with suppress(OSError):
            away.rename(self._volume / "folder")

    def _remount(self) -> None:
        detach(self._root)
        mount(self._root, self._volume)
