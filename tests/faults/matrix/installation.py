"""An installation for many jobs at once: scaled times, many stores, and a record of each attempt used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.matrix.cells import SLICE_BYTES
from tests.support.installation import Installation
from tests.support.store import profile
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stores_file import Table
    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey

Row = dict[str, Any]

#: A tenth of the shipped times, except for a death: a loaded machine must not make a worker look dead.
SCALED = {
    "SLICEWAY_TIME_SCALE": "0.1",
    "SLICEWAY_HEARTBEAT_S": "2",
    "SLICEWAY_DEAD_AFTER_S": "40",
    "SLICEWAY_LEAD_S": "10",
    "SLICEWAY_WORKER_THREADS": "16",
    "SLICEWAY_LOG_LEVEL": "info",
}
#: Stores of one bucket: for jobs whose fault opens the breaker, and for jobs that need a short timeout.
UNUSABLE = tuple(f"unusable-{number}" for number in range(1, 61))
SHORT_TIMEOUT = "short-timeout"
SHORT_TIMEOUT_S = 1.5

_NOTE_ATTEMPTS = """
CREATE TABLE attempt (job_id uuid);
CREATE FUNCTION note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO attempt SELECT (to_jsonb(NEW)->>TG_ARGV[0])::uuid FROM generate_series(1, NEW.attempts - OLD.attempts);
  RETURN NULL;
END $$;
CREATE TRIGGER attempts AFTER UPDATE OF attempts ON job FOR EACH ROW WHEN (NEW.attempts > OLD.attempts)
  EXECUTE FUNCTION note_attempt('id');
CREATE TRIGGER attempts AFTER UPDATE OF attempts ON slice FOR EACH ROW WHEN (NEW.attempts > OLD.attempts)
  EXECUTE FUNCTION note_attempt('job_id');
"""


class MatrixInstallation(Installation):
    """An installation with many stores of the same bucket, and one connection for all queries."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template: str) -> None:
        """Start everything."""
        super().__init__(folder, postgres, valkey, template)
        self.sql(_NOTE_ATTEMPTS)
        self._connection = psycopg.connect(conninfo(self.database.url), autocommit=True, row_factory=dict_row)
        self.sql = self._query

    def _environ(self) -> dict[str, str]:
        return super()._environ() | SCALED

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, by name."""
        timeouts = dict.fromkeys(UNUSABLE, 20.0) | {SHORT_TIMEOUT: SHORT_TIMEOUT_S}
        return super().stores() | {
            name: profile(self.store.url, slice_bytes=524288, answer_timeout_s=timeout_s, finish_timeout_s=timeout_s)
            for name, timeout_s in timeouts.items()
        }

    def _query(self, statement: str, **params: Any) -> list[Row]:
        cursor = self._connection.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """Forget the test before, and let the store ask for small slices."""
        super().begin()
        self.store.control.change(forced_slice_size=SLICE_BYTES)

    def release_all(self) -> None:
        """Release all held requests, and wait until the store has executed them."""
        self.store.control.clear_rules()
        self.store.control.release()
        self.until(lambda: not self.store.requests(state="held"), "the end of all held requests")
        self.until(lambda: not self.store.requests(state="receiving"), "the end of all requests")

    def close(self) -> None:
        """Stop everything."""
        for worker in self._workers:  # an orderly stop would only cost time
            worker.kill()
        self._connection.close()
        super().close()
