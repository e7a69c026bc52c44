"""An operator of a run: cancels what is to be cancelled, retries what a fault has failed."""

from __future__ import annotations

import random
import threading
import traceback
from typing import TYPE_CHECKING, Any

from tests.faults.chaos.calls import Caller
from tests.faults.chaos.clients import put_file
from tests.faults.chaos.errands import Twist

if TYPE_CHECKING:
    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.told import Told

Row = dict[str, Any]
_ROUND_S = 0.5
_CANCEL_WITHIN_S = 4.0
_RETRIES_MAX = 50
_LOOKS = 5
#: Failures of which another attempt makes something else.
FAILED = """SELECT id::text FROM job WHERE state = 'failed' AND error->>'code' <> 'object_exists'
            AND NOT (overwrite AND error->>'code' = 'upload_in_progress')"""


class Operator(threading.Thread):
    """Looks at the jobs every half second and does what a person would."""

    def __init__(self, cluster: Cluster, told: Told, over: threading.Event) -> None:
        """Prepare an operator.

        Args:
            cluster: what is looked after.
            told: the jobs.
            over: set when it is all over.
        """
        super().__init__(name="operator", daemon=True)
        self._cluster, self._told, self._over = cluster, told, over
        self._chance = random.Random(self.name)
        self._caller = Caller(self.name, cluster, over)

    def run(self) -> None:
        """Go round until it is over."""
        try:
            while not self._over.wait(_ROUND_S):
                self.round()
        except Exception:  # noqa: BLE001 - whatever it is, the run must say that nobody looks after it
            self._told.fault(f"operator: {traceback.format_exc()}")
        finally:
            self._caller.close()

    def round(self) -> None:
        """Cancel what is due, retry what has failed, look at a few."""
        for seen in self._told.some(self._chance, _LOOKS):
            self._caller.read(seen)
        for due in self._told.to_cancel(_CANCEL_WITHIN_S):
            due.cancelled = self._caller.act(due, "cancel")
        for row in self._cluster.ask(FAILED):
            kept = self._told.kept.get(row["id"])  # not there: its client has not heard of it yet
            if kept is not None and kept.retries < _RETRIES_MAX:
                if kept.errand.twist is Twist.LATE and kept.retries == 0:
                    put_file(self._cluster, kept.errand)
                kept.retries += self._caller.act(kept, "retry")
