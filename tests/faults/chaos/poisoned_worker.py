"""A worker process that kills itself when it reads one slice of one file, as a poisonous input would kill it."""

from __future__ import annotations

import os
import signal
import sys

from celery.__main__ import main

from worker.sources.file import FileReader

POISON = "POISONED_PATH"
POISON_OFFSET_BYTES = "POISONED_OFFSET_BYTES"

if __name__ == "__main__":
    poisoned = os.environ[POISON], int(os.environ[POISON_OFFSET_BYTES])
    read_into = FileReader.read_into

    def read_or_die(self: FileReader, buffer: memoryview, offset_bytes: int) -> None:
        """Read, unless it is the poisoned slice."""
        if (self._path, offset_bytes) == poisoned:
            os.kill(os.getpid(), signal.SIGKILL)
        read_into(self, buffer, offset_bytes)

    FileReader.read_into = read_or_die  # type: ignore[method-assign]
    sys.exit(main())
