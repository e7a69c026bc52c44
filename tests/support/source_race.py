"""A root whose files are renamed, linked out of it and unmounted while others open them.

Whatever the moment, what is read below the root is a file of the root: the bytes outside are never among it, and every
refusal is an error that the retry decision knows.
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
#: What may come of opening each name: a file that nobody touches is missed by nobody, a link that leads out is refused.
LAWS = {
    "file": {"read", _AWAY},
    "folder/file": {"read", _AWAY, _REFUSED, "source_gone"},
    "swapped": {"read", _AWAY, _REFUSED, "source_gone"},
    "out": {_AWAY, _REFUSED},
    "through/file": {_AWAY, _REFUSED},
    "folder/../file": {_REFUSED},
}
_DETACH, _BIND = 2, 4096
_libc = ctypes.CDLL(None, use_errno=True)


def mount(folder: Path, shown: Path | None = None) -> None:
    """Mount an empty file system of its own over a folder, or another folder; only root can."""
    at = os.fsencode(folder)
    given = (b"tmpfs", at, b"tmpfs", 0, b"size=1m") if shown is None else (os.fsencode(shown), at, None, _BIND, None)
    if _libc.mount(*given):
        raise OSError(ctypes.get_errno(), f"mount {folder}")


def detach(folder: Path) -> None:
    """Unmount what is mounted there, as `umount --lazy` does: whoever has it open keeps it."""
    if _libc.umount2(os.fsencode(folder), _DETACH):
        raise OSError(ctypes.get_errno(), f"unmount {folder}")


class SourceRace:
    """One thread opens and reads, another changes what is there; both by the seed.

    Args:
        folder: an empty one; nothing is mounted there any more after `play`.
        seed: of the acts and of the readings.
        mounts: whether the root is a volume that is unmounted and mounted now and then; only root can.
    """

    def __init__(self, folder: Path, seed: int, *, mounts: bool) -> None:
        self.came_of: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._root, self._outside = folder / "root", folder / "outside"
        self._volume = folder / "volume" if mounts else self._root
        self._profile = RootProfile(name="media", path=self._root)
        self._mounts, self._seed, self._over = mounts, seed, threading.Event()
        self._outside.mkdir()
        (self._outside / "file").write_bytes(OUTSIDE)
        self._fill()
        if mounts:
            self._root.mkdir()
            mount(self._root, self._volume)

    def play(self, *, rounds: int = 0, seconds: float = 0.0) -> None:
        """Open files so often, and for so long."""
        actor = threading.Thread(target=self._act)
        actor.start()
        try:
            chance, until_s = random.Random(self._seed), time.monotonic() + seconds
            while rounds > 0 or time.monotonic() < until_s:
                self._read(chance.choice(list(LAWS)))
                rounds -= 1
        finally:
            self._over.set()
            actor.join()
            if self._mounts:
                detach(self._root)

    def _read(self, path: str) -> None:
        came, buffer = "read", bytearray(len(INSIDE))
        try:
            with open_file(self._profile, path) as source:
                source.read_into(memoryview(buffer), 0)
        except SourceError as error:
            came = error.code
        else:
            if buffer != INSIDE:
                self.wrong[f"{path} shows {bytes(buffer)!r}"] += 1
        self.came_of[came] += 1
        if came not in LAWS[path]:
            self.wrong[f"{path}: {came}"] += 1

    def _fill(self) -> None:
        (self._volume / "folder").mkdir(parents=True)
        for name in ("file", "folder/file"):
            (self._volume / name).write_bytes(INSIDE)
        for name, target in (("out", self._outside / "file"), ("through", self._outside)):
            (self._volume / name).symlink_to(target)

    def _act(self) -> None:
        acts: list[Callable[[], None]] = [self._link_file, self._link_folder, self._move_out]
        if self._mounts:
            acts += [self._remount] * 3
        chance = random.Random(~self._seed)
        while not self._over.is_set():
            chance.choice(acts)()

    def _link_file(self) -> None:
        """Replace a file by a link to one outside, and the other way round."""
        link, file, at = self._volume / "link.new", self._volume / "file.new", self._volume / "swapped"
        file.write_bytes(INSIDE)
        file.replace(at)
        link.symlink_to(self._outside / "file")
        link.replace(at)

    def _link_folder(self) -> None:
        """Let a link that leads out stand in a folder's place for a moment."""
        folder, away = self._volume / "folder", self._volume / "away"
        folder.rename(away)
        folder.symlink_to(self._outside)
        folder.unlink()
        away.rename(folder)

    def _move_out(self) -> None:
        """Move a file's folder out of the root and back; not from one file system to another."""
        away = self._outside / "moved"
        with suppress(OSError):
            (self._volume / "folder").rename(away)
        with suppress(OSError):
            away.rename(self._volume / "folder")

    def _remount(self) -> None:
        detach(self._root)
        mount(self._root, self._volume)
