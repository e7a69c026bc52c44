"""Malformed messages on a broker other than Redis, over Celery's own transport, do not end the worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support import memory_worker
from tests.support.memory_worker import carried

#: The task itself refuses these, which this worker cannot run; or their fault does not matter.
QUIET = {"delivery-tag-list", "no-delivery-info", "priority-text", "id-no-uuid", "shadow-list", "timelimit-text"}
QUIET |= {"traceparent-list", "baggage-long"}
QUIET |= {
    "compression-list",
    "errbacks",
    "stamped",
    "body-positional",
    "body-nan",
    "no-delivery-tag",
    "delivery-info-text",
}
ARGUMENTS = (
    "job",
    "token",
    "epoch",
    "number",
    "alone",
    "no-job",
    "no-token",
    "no-number",
    "no-arguments",
    "an-unknown",
)


def test_a_worker_on_another_broker_outlives_whatever_it_carries() -> None:
    given = {"DATABASE_URL": "postgresql://nowhere/test", "BROKER_URL": "memory://", "LOG_FORMAT": "json"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    environ |= {f"SLICEWAY_{name}": value for name, value in given.items()}
    command = [sys.executable, "-m", memory_worker.__name__]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [line for line in events if "traceback" in line] == []
    refused = [line for line in events if line["event"] == "message.refused"]
    loud = {name for name in carried() if name not in QUIET and not name.startswith(ARGUMENTS)}
    assert len(refused) == len(loud)
