"""Clients of a run: they put files there, ask for uploads over HTTP, and insist until they are told."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.chaos.calls import Caller
from tests.faults.chaos.errands import Errand, Twist
from tests.support.store import BUCKET
from worker.emulator.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.told import Told

Row = dict[str, Any]
_BATCH = 8
_FULL_POLL_S = 0.5
_PLANT_AGAIN_S = 0.2


def orders(errands: Iterable[Errand]) -> Iterator[list[Errand]]:
    """Put errands that may travel together into batches, each of one tenant."""
    waiting: dict[str, list[Errand]] = {}
    for errand in errands:
        if not errand.batched:
            yield [errand]
            continue
        batch = waiting.setdefault(errand.tenant, [])
        batch.append(errand)
        if len(batch) == _BATCH:
            yield waiting.pop(errand.tenant)
    yield from waiting.values()


class Office:
    """Hands out the orders to the clients, evenly over the time, and no more while too many jobs are live."""

    def __init__(
        self, errands: Iterable[Errand], *, jobs_per_s: float, full: Callable[[], bool], over: threading.Event
    ) -> None:
        """Begin now.

        Args:
            errands: what is to be asked for.
            jobs_per_s: how fast.
            full: whether there are too many live jobs.
            over: set when nothing is dispatched any more.
        """
        self._orders, self._jobs_per_s, self._full, self._over = orders(errands), jobs_per_s, full, over
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._handed_out = 0

    def next(self) -> list[Errand] | None:
        """The next order when its time has come; None when there are no more."""
        with self._lock:
            order = next(self._orders, None)
            if order is None:
                return None
            due = self._began + self._handed_out / self._jobs_per_s
            self._handed_out += len(order)
        self._over.wait(max(0.0, due - time.monotonic()))
        while self._full() and not self._over.wait(_FULL_POLL_S):
            pass
        return None if self._over.is_set() else order


class Client(threading.Thread):
    """Carries out orders, one after the other."""

    def __init__(self, number: int, cluster: Cluster, office: Office, told: Told, over: threading.Event) -> None:
        """Prepare a client.

        Args:
            number: tells it from the others.
            cluster: whom it asks.
            office: where the orders come from.
            told: where it writes down what it asked and was told.
            over: set when it is all over.
        """
        super().__init__(name=f"client-{number}", daemon=True)
        self._cluster, self._office, self._told, self._over = cluster, office, told, over
        self._caller = Caller(self.name, cluster, over)

    def run(self) -> None:
        """Work until there are no more orders."""
        try:
            while (order := self._office.next()) is not None:
                for errand in order:
                    self._prepare(errand)
                self._submit(order)
        except Exception:  # noqa: BLE001 - whatever it is, the run must say that this client has ended
            self._told.fault(f"{self.name}: {traceback.format_exc()}")
        finally:
            self._caller.close()

    def _prepare(self, errand: Errand) -> None:
        if errand.twist is not Twist.LATE:
            put_file(self._cluster, errand)
        if errand.twist in {Twist.OVERWRITE, Twist.REFUSED}:
            self._plant(errand)

    def _plant(self, errand: Errand) -> None:
        """Have somebody else's object at the key, however often the store must be asked."""
        content = errand.stranger()
        while not self._over.is_set():
            try:
                with self._caller.recorder.planting_object(errand.key, content) as asked:
                    self._cluster.store.control.plant_object(BUCKET, errand.key, content)
                    asked.told(httpx.codes.OK)
            except (OSError, ControlError):
                self._over.wait(_PLANT_AGAIN_S)
            else:
                return

    def _submit(self, order: list[Errand]) -> None:
        if len(order) == 1:
            for _ in range(2 if order[0].twist is Twist.REPEAT else 1):
                self._submit_one(order[0])
        else:
            self._submit_batch(order)

    def _submit_one(self, errand: Errand) -> None:
        answer = self._caller.submit(errand)
        if answer is not None:
            self._note(errand, answer.status_code, answer.json())

    def _submit_batch(self, order: list[Errand]) -> None:
        results = self._caller.submit_batch(order)
        for errand, result in zip(order, results or (), strict=results is not None):
            self._note(errand, result["status"], result.get("job") or result["problem"])

    def _note(self, errand: Errand, status: int, document: Row) -> None:
        if status == httpx.codes.ACCEPTED:
            self._told.accepted(errand, document["id"])
        else:
            self._told.fault(f"{errand.key} was refused with {status}: {document}")


def put_file(cluster: Cluster, errand: Errand) -> None:
    """Write the errand's file below the root."""
    place = cluster.media / errand.path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(errand.content())
