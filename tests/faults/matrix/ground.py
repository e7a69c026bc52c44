"""An installation for many jobs at once: scaled times, stores with short and long timeouts, and each attempt noted."""

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

#: A tenth of the shipped times, but for a death: a busy machine still answers within them.
SCALED = {
    "SLICEWAY_TIME_SCALE": "0.1",
    "SLICEWAY_HEARTBEAT_S": "2",
    "SLICEWAY_DEAD_AFTER_S": "40",
    "SLICEWAY_LEAD_S": "10",
    "SLICEWAY_WORKER_THREADS": "16",
    "SLICEWAY_LOG_LEVEL": "info",
}
#: Stores of one bucket: for jobs that make theirs unusable, and for jobs whose requests are to time out soon.
UNUSABLE = tuple(f"unusable-{number}" for number in range(1, 61))
HASTY = "hasty"
HASTY_S = 1.5

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


class StoreGround(Installation):
    """An installation with many stores, all of them the same bucket, and one connection for all questions."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template: str) -> None:
        """Start everything."""
        super().__init__(folder, postgres, valkey, template)
        self.sql(_NOTE_ATTEMPTS)
        self._asking = psycopg.connect(conninfo(self.database.url), autocommit=True, row_factory=dict_row)
        self.sql = self._ask

    def _environ(self) -> dict[str, str]:
        return super()._environ() | SCALED

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, by name."""
        timeouts = dict.fromkeys(UNUSABLE, 20.0) | {HASTY: HASTY_S}
        return super().stores() | {
            name: profile(self.store.url, slice_bytes=524288, answer_timeout_s=timeout_s, finish_timeout_s=timeout_s)
            for name, timeout_s in timeouts.items()
        }

    def _ask(self, statement: str, **params: Any) -> list[Row]:
        cursor = self._asking.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """Forget what the test before has left behind, and let uploads be cut into small slices."""
        super().begin()
        self.store.control.change(forced_slice_size=SLICE_BYTES)

    def release_all(self) -> None:
        """Let the store take up what it held, late as it is, and wait until it has."""
        self.store.control.clear_rules()
        self.store.control.release()
        self.until(lambda: not self.store.requests(state="held"), "the end of what was held")
        self.until(lambda: not self.store.requests(state="receiving"), "the end of all requests")

    def close(self) -> None:
        """Stop everything."""
        for worker in self._workers:  # nothing is left that an orderly end would be good for
            worker.kill()
        self._asking.close()
        super().close()
