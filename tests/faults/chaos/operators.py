"""The operator of a run: cancels the jobs that are to be cancelled, retries those that a fault has failed."""

from __future__ import annotations

import random
import threading
import traceback
from typing import TYPE_CHECKING

from tests.faults.chaos.api_client import ApiClient
from tests.faults.chaos.clients import put_file
from tests.faults.chaos.workload import Variant

if TYPE_CHECKING:
    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.expectations import Expectations

_INTERVAL_S = 0.5
_CANCEL_WITHIN_S = 4.0
_MAX_RETRIES = 50
_READS = 5
#: Failures that another attempt may change.
FAILED = """SELECT id::text FROM job WHERE state = 'failed' AND error->>'code' <> 'object_exists'
            AND NOT (overwrite AND error->>'code' = 'upload_in_progress')"""


class Operator(threading.Thread):
    """Acts every half second."""

    def __init__(self, cluster: Cluster, expectations: Expectations, over: threading.Event) -> None:
        """Prepare an operator.

        Args:
            cluster: whose API it calls.
            expectations: the jobs.
            over: set when the run is over.
        """
        super().__init__(name="operator", daemon=True)
        self._cluster, self._expectations, self._over = cluster, expectations, over
        self._chance = random.Random(self.name)
        self._api = ApiClient(self.name, cluster, over)

    def run(self) -> None:
        """Act until the run is over."""
        try:
            while not self._over.wait(_INTERVAL_S):
                self._act()
        except Exception:  # noqa: BLE001 - the run must report that its operator has ended
            self._expectations.error(f"operator: {traceback.format_exc()}")
        finally:
            self._api.close()

    def _act(self) -> None:
        """Cancel the jobs that are due, retry those that have failed, read a few."""
        for job in self._expectations.sample(self._chance, _READS):
            self._api.read(job)
        for due in self._expectations.to_cancel(_CANCEL_WITHIN_S):
            due.cancelled = self._api.act(due, "cancel")
        for row in self._cluster.sql_if_up(FAILED):
            failed = self._expectations.jobs.get(row["id"])  # None until its client has the answer
            if failed is not None and failed.retries < _MAX_RETRIES:
                if failed.request.variant is Variant.LATE and failed.retries == 0:
                    put_file(self._cluster, failed.request)
                failed.retries += self._api.act(failed, "retry")
