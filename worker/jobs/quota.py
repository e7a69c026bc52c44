"""How many live jobs a tenant may have."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.db.pool import Connection


_COUNT_EVERY_S = 1.0
_COUNT_FIRST_AFTER_S = 2.0


@dataclass(slots=True)
class Quota:
    """Bounds the live jobs a tenant has: counted once a second while requests come, plus what was admitted here since.

    `recount` counts beside the requests. Where that was too long ago, `take` counts before it grants.

    Several processes may together exceed it by what they admit within two seconds. Safe for several threads.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    _live: dict[str, int] = field(default_factory=dict)
    _counted: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, tx: Connection, tenant: str, wanted: int) -> int:
        """Return for how many of the wanted jobs there is room, and count them as there."""
        self._count(tx, tenant, _COUNT_FIRST_AFTER_S)
        with self._lock:
            live = self._live.get(tenant, 0)
            granted = max(0, min(wanted, self.most - live))
            self._live[tenant] = live + granted
            return granted

    def is_due(self, tenant: str) -> bool:
        """Return whether the tenant's jobs are due to be counted, before a request has to wait for that."""
        return self._age_s(tenant) >= _COUNT_EVERY_S

    def recount(self, tx: Connection, tenant: str) -> None:
        """Count the tenant's live jobs, unless another has begun to meanwhile."""
        self._count(tx, tenant, _COUNT_EVERY_S)

    def _count(self, tx: Connection, tenant: str, if_older_s: float) -> None:
        with self._lock:
            if self._age_s(tenant) < if_older_s:
                return
            before, self._counted[tenant] = self._counted.get(tenant), self.clock()
        try:
            live = _count_live(tx, tenant, self.most)  # the others go on with the last figure meanwhile
        except psycopg.Error:
            with self._lock:
                self._counted[tenant] = float("-inf") if before is None else before
            raise
        with self._lock:
            self._live[tenant] = live

    def _age_s(self, tenant: str) -> float:
        return self.clock() - self._counted.get(tenant, float("-inf"))

    def give_back(self, tenant: str, unused: int) -> None:
        """Count jobs as not there that were taken but not made."""
        with self._lock:
            self._live[tenant] = max(0, self._live.get(tenant, 0) - unused)


def _count_live(tx: Connection, tenant: str, most: int) -> int:
    row = tx.execute(sql("count_live"), {"tenant": tenant, "most": most}).fetchone()
    assert row is not None
    return int(row["live"])
