"""An unexpected error does not end the heartbeat thread."""

from __future__ import annotations

import threading

from worker.config.settings import Settings
from worker.runtime.heartbeat import Liveness
from worker.tasks.context import Runtime


class Stumbling(Liveness):
    """A heartbeat thread whose first heartbeat fails unexpectedly."""

    def __init__(self, rt: Runtime) -> None:
        super().__init__(rt, request_stop=rt.stopping.set, resize=lambda _: None)
        self.tried, self.went_on = 0, threading.Event()

    def _beat(self) -> None:
        self.tried += 1
        if self.tried == 1:
            raise RuntimeError("unexpected")
        self.went_on.set()
        self._ended.set()


def test_a_heartbeat_that_fails_unexpectedly_is_not_the_last() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://user@localhost/nothing", broker_url="redis://localhost", heartbeat_s=0.01
    )
    liveness = Stumbling(Runtime(settings, revoked=lambda _: False))
    liveness.start()
    assert liveness.went_on.wait(10)
    liveness.join(10)
