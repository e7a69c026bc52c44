"""The doctor finds live workers that consume nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from celery import Celery

from tests.support.deadline import DEADLINE_S
from worker.config.broker_url import BrokerUrl
from worker.doctor import consumers
from worker.doctor.findings import Level
from worker.jobs.task_names import QUEUE
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_workers_that_answer_and_consume_nothing(
    tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "ANSWER_S", 5.0)  # a busy machine is no failure
    url = BrokerUrl.of(broker_url)
    assert list(consumers.consumers(url)) == []
    command = [sys.executable, "-m", "celery", "-b", broker_url, "worker", "-P", "solo", "-Q", QUEUE]
    worker = Child(command, log=tmp_path / "worker.telemetry.log", cwd=tmp_path)  # as Celery has it, like those of 0.1
    try:
        with Celery("operator", broker=broker_url, set_as_current=False) as operator:

            def answers() -> bool:
                return bool(operator.control.ping(timeout=2, limit=1))

            assert wait_until(answers, timeout_s=DEADLINE_S), (tmp_path / "worker.telemetry.log").read_text()
            assert list(consumers.consumers(url)) == []
            assert operator.control.cancel_consumer(QUEUE, reply=True, limit=1, timeout=DEADLINE_S)
            found = [*consumers.consumers(url)]
            assert wait_until(lambda: bool(found or found.extend(consumers.consumers(url))), timeout_s=DEADLINE_S)
    finally:
        worker.stop()
    assert (found[0].level, "1 worker answers, and none takes messages" in found[0].text) == (Level.FAILED, True)
