"""A broker that does not take a batch is one that is away, whatever its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.integration.dispatch.office import eventually
from worker.dispatch.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.dispatch.office import Office


def test_a_full_broker_is_waited_for_like_one_that_is_away(office: Office) -> None:
    raised: list[Exception] = []
    foreign: list[Exception] = []

    class Watched(Broker):
        def publish(self, rows: Sequence[dict[str, Any]]) -> None:
            try:
                super().publish(rows)
            except Exception as error:
                raised.append(error)
                foreign.extend([] if isinstance(error, self.errors) else [error])
                raise

    office.bench.worker = office.bench.start_worker(slots=3)
    office.bench.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")
    office.queue.config_set("maxmemory", 1)
    try:
        job = office.bench.enqueue()
        office.start(broker=Watched)
        eventually(lambda: raised, "a broker without memory took a message")
    finally:
        office.queue.config_set("maxmemory", 0)
    (message,) = office.wait_for(1)
    assert message.job == job
    assert not foreign, "taken for a fault of the dispatcher's own"
