"""A small file system that a test can fill and empty."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FILLER = ".filler"
_PIECE = bytes(64 * 1024)


class Disk:
    """A tmpfs over a folder, which only root can mount."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        """Mount it."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=711", "tmpfs", folder], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        fd = os.open(self.folder / _FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while True:
                os.write(fd, _PIECE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Free the space again."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, also while a process uses it."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)
