"""A worker process that dies as soon as it reads one place of one file, as one with a fault of its own would."""

from __future__ import annotations

import os
import signal
import sys

from celery.__main__ import main

from worker.sources.file import FileSource

POISON = "POISONED_PATH"
POISON_OFFSET_BYTES = "POISONED_OFFSET_BYTES"

if __name__ == "__main__":
    place = os.environ[POISON], int(os.environ[POISON_OFFSET_BYTES])
    read_into = FileSource.read_into

    def read_or_die(self: FileSource, buffer: memoryview, offset_bytes: int) -> None:
        """Read, unless it is the place."""
        if (self._path, offset_bytes) == place:
            os.kill(os.getpid(), signal.SIGKILL)
        read_into(self, buffer, offset_bytes)

    FileSource.read_into = read_or_die  # type: ignore[method-assign]
    sys.exit(main())
