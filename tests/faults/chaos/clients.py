"""The clients of a run: they write files, ask for uploads over HTTP, and repeat each request until it is answered."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.chaos.api_client import ApiClient
from tests.faults.chaos.workload import JobRequest, Variant
from tests.support.store import BUCKET
from worker.emulator.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.expectations import Expectations

Row = dict[str, Any]
_BATCH_SIZE = 8
_FULL_POLL_S = 0.5
_RETRY_DELAY_S = 0.2


def batches(requests: Iterable[JobRequest]) -> Iterator[list[JobRequest]]:
    """Group the requests that are to be batched, each batch of one tenant; the others come alone."""
    waiting: dict[str, list[JobRequest]] = {}
    for request in requests:
        if not request.batched:
            yield [request]
            continue
        batch = waiting.setdefault(request.tenant, [])
        batch.append(request)
        if len(batch) == _BATCH_SIZE:
            yield waiting.pop(request.tenant)
    yield from waiting.values()


class PacedWorkload:
    """Gives the clients one batch after the other at a steady rate, and none while too many jobs are live."""

    def __init__(
        self, requests: Iterable[JobRequest], *, jobs_per_s: float, full: Callable[[], bool], over: threading.Event
    ) -> None:
        """Begin now.

        Args:
            requests: for all jobs.
            jobs_per_s: the rate.
            full: whether there are too many live jobs.
            over: set when the run is over.
        """
        self._batches, self._jobs_per_s, self._full, self._over = batches(requests), jobs_per_s, full, over
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._given = 0

    def next(self) -> list[JobRequest] | None:
        """Wait for the next batch's time; None when there are no more."""
        with self._lock:
            batch = next(self._batches, None)
            if batch is None:
                return None
            due = self._began + self._given / self._jobs_per_s
            self._given += len(batch)
        self._over.wait(max(0.0, due - time.monotonic()))
        while self._full() and not self._over.wait(_FULL_POLL_S):
            pass
        return None if self._over.is_set() else batch


class Client(threading.Thread):
    """Submits batches, one after the other."""

    def __init__(
        self,
        number: int,
        cluster: Cluster,
        workload: PacedWorkload,
        expectations: Expectations,
        over: threading.Event,
    ) -> None:
        """Prepare a client.

        Args:
            number: of the client.
            cluster: whose API it calls.
            workload: where the batches come from.
            expectations: where it records the accepted jobs.
            over: set when the run is over.
        """
        super().__init__(name=f"client-{number}", daemon=True)
        self._cluster, self._workload, self._expectations, self._over = cluster, workload, expectations, over
        self._api = ApiClient(self.name, cluster, over)

    def run(self) -> None:
        """Work until there are no more batches."""
        try:
            while (batch := self._workload.next()) is not None:
                for request in batch:
                    self._prepare(request)
                self._submit(batch)
        except Exception:  # noqa: BLE001 - the run must report that this client has ended
            self._expectations.error(f"{self.name}: {traceback.format_exc()}")
        finally:
            self._api.close()

    def _prepare(self, request: JobRequest) -> None:
        if request.variant is not Variant.LATE:
            put_file(self._cluster, request)
        if request.variant in {Variant.OVERWRITE, Variant.REFUSED}:
            self._plant(request)

    def _plant(self, request: JobRequest) -> None:
        """Put another client's object at the key; repeat it while the store is down."""
        content = request.foreign_content()
        while not self._over.is_set():
            try:
                with self._api.recorder.planting_object(request.key, content) as pending:
                    self._cluster.store.control.plant_object(BUCKET, request.key, content)
                    pending.answered(httpx.codes.OK)
            except (OSError, ControlError):
                self._over.wait(_RETRY_DELAY_S)
            else:
                return

    def _submit(self, batch: list[JobRequest]) -> None:
        if len(batch) == 1:
            for _ in range(2 if batch[0].variant is Variant.REPEAT else 1):
                self._submit_one(batch[0])
        else:
            self._submit_batch(batch)

    def _submit_one(self, request: JobRequest) -> None:
        answer = self._api.submit(request)
        if answer is not None:
            self._record(request, answer.status_code, answer.json())

    def _submit_batch(self, batch: list[JobRequest]) -> None:
        results = self._api.submit_batch(batch)
        for request, result in zip(batch, results or (), strict=results is not None):
            self._record(request, result["status"], result.get("job") or result["problem"])

    def _record(self, request: JobRequest, status: int, document: Row) -> None:
        if status == httpx.codes.ACCEPTED:
            self._expectations.accepted(request, document["id"])
        else:
            self._expectations.error(f"{request.key} was refused with {status}: {document}")


def put_file(cluster: Cluster, request: JobRequest) -> None:
    """Write the request's file below the root."""
    file = cluster.media / request.path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(request.content())
