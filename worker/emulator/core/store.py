"""The state that all requests of one emulator share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from worker.emulator.config import RuntimeSettings
from worker.emulator.core.disk import Disk
from worker.emulator.core.faults import FaultPlan
from worker.emulator.core.folders import Folders
from worker.emulator.core.journal import Journal
from worker.emulator.core.journal_file import JournalFile
from worker.emulator.core.objects import Objects
from worker.emulator.core.records import Records
from worker.emulator.core.uploads import Uploads

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from worker.emulator.config import EmulatorConfig


class Store:
    """The state of an emulator: the data folder, and the state of this process.

    Raises:
        OSError: The folder cannot be used, or another emulator uses it.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        _private_folder(config.data_dir)
        self._lock = _lock(config.data_dir)
        self.config = config
        self.settings = RuntimeSettings.of(config)
        self.stopping = threading.Event()
        self.secret_keys = {account.secret_id: account.secret_key for account in config.accounts}
        self.journal = Journal(config.journal_length)
        self.journal_file = JournalFile(config.journal_file)
        self.plan = FaultPlan()
        _private_file(config.data_dir / "records.sqlite3")  # SQLite gives its other files the same mode
        self.records = Records(config.data_dir / "records.sqlite3", fsync=config.fsync)
        _private_folder(config.data_dir / "content")
        self.disk = Disk(config.data_dir / "content", fsync=config.fsync, discard=config.discard)
        self.disk.sweep(self.records.contents())
        self.folders = Folders(self.records, self.settings)
        self.uploads = Uploads(
            self.records, self.disk, self.folders, config, self.settings, journal_file=self.journal_file
        )
        self.objects = Objects(
            self.records, self.disk, self.folders, self.uploads, self.settings, journal_file=self.journal_file
        )
        self.journal_file.held(self.records)

    def stop(self) -> None:
        """Ends all waits, now and later."""
        self.stopping.set()
        self.plan.stop()
        self.journal.stop()

    def close(self) -> None:
        """Closes the data folder."""
        self.records.close()
        self.journal_file.close()
        self._lock.close()


def _lock(folder: Path) -> TextIO:
    """Locks the folder until the returned file is closed or the process ends."""
    _private_file(folder / "lock")
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BlockingIOError(f"another emulator uses {folder}") from None
    return file


def _private_folder(folder: Path) -> None:
    """Makes a folder with mode 0700; an existing folder gets that mode if this user owns it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(PermissionError):  # a volume that another user owns
        folder.chmod(0o700)


def _private_file(file: Path) -> None:
    """Makes an empty file with mode 0600; an existing file keeps its content and gets that mode."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    with contextlib.suppress(PermissionError):
        file.chmod(0o600)
