"""Everything that one emulator's requests share, put together."""

from __future__ import annotations

import fcntl
import threading
from typing import TYPE_CHECKING

from worker.emulator.config import RuntimeSettings
from worker.emulator.core.disk import Disk
from worker.emulator.core.faults import FaultPlan
from worker.emulator.core.folders import Folders
from worker.emulator.core.journal import Journal
from worker.emulator.core.ledger import Ledger
from worker.emulator.core.objects import Objects
from worker.emulator.core.records import Records
from worker.emulator.core.uploads import Uploads
from worker.emulator.http.throttle import Throttle
from worker.emulator.private import private_file, private_folder

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from worker.emulator.config import EmulatorConfig


class Store:
    """The state of an emulator: what is on disk, and what lives as long as the process.

    Raises:
        OSError: The folder cannot be used, or another emulator uses it.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        private_folder(config.data_dir)
        self._lock = _lock(config.data_dir)
        self.config = config
        self.settings = RuntimeSettings.of(config)
        self.stopping = threading.Event()
        self.throttle = Throttle(self.settings, self.stopping)
        self.secret_keys = {account.secret_id: account.secret_key for account in config.accounts}
        self.journal = Journal(config.journal_length)
        self.ledger = Ledger(config.journal_file)
        self.plan = FaultPlan()
        private_file(config.data_dir / "records.sqlite3")  # what SQLite puts beside it has the same mode
        self.records = Records(config.data_dir / "records.sqlite3", fsync=config.fsync)
        self.disk = Disk(config.data_dir / "content", fsync=config.fsync, discard=config.discard)
        self.disk.sweep(self.records.contents())
        self.folders = Folders(self.records, self.settings)
        self.uploads = Uploads(self.records, self.disk, self.folders, config, self.settings, ledger=self.ledger)
        self.objects = Objects(self.records, self.disk, self.folders, self.uploads, self.settings, ledger=self.ledger)
        self.ledger.held(self.records)

    def stop(self) -> None:
        """Wakes everybody who waits; nobody waits again."""
        self.stopping.set()
        self.plan.stop()
        self.journal.stop()

    def close(self) -> None:
        """Lets go of the folder."""
        self.records.close()
        self.ledger.close()
        self._lock.close()


def _lock(folder: Path) -> TextIO:
    """Keeps others out of the folder until the file returned is closed, by whatever end of this process."""
    private_file(folder / "lock")
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BlockingIOError(f"another emulator uses {folder}") from None
    return file
