"""A worker that gets a signal before it is ready ends, whatever it waits for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.deadline import DEADLINE_S
from worker.local.ports import free_port
from worker.local.process import Child, wait_until
from worker.runtime.supervisor import command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("away", ["database", "broker"])
def test_a_worker_that_waits_for_a_server_ends_in_order(
    tmp_path: Path, database_url: str, broker_url: str, away: str
) -> None:
    port, log = free_port(), tmp_path / "worker.telemetry.log"
    environ = {"SLICEWAY_DATABASE_URL": database_url, "SLICEWAY_BROKER_URL": broker_url, "SLICEWAY_LOG_FORMAT": "text"}
    if away == "database":
        environ["SLICEWAY_DATABASE_URL"] = f"postgresql://me:fake-secret-1@127.0.0.1:{port}/x"
    else:
        environ["SLICEWAY_BROKER_URL"] = f"redis://:fake-secret-1@127.0.0.1:{port}/0"
    worker = Child(command(1), log=log, env=environ)
    says = "worker.database_lost" if away == "database" else "Cannot connect to redis"
    try:
        assert wait_until(lambda: says in log.read_text(), timeout_s=DEADLINE_S), log.read_text()
        worker.send(signal.SIGTERM)
        assert wait_until(lambda: worker.poll() is not None, timeout_s=DEADLINE_S), log.read_text()
    finally:
        code = worker.kill()
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text()
