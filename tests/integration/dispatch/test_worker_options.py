"""An option of `celery worker` that our worker does not serve is refused at its start, in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from worker.jobs.task_names import QUEUE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-P", "solo"], "-P solo: this pool is not served"),
        (["--autoscale=4,1"], "--autoscale is not served"),
        (["-P", "threads", "-Q", "other"], f"-Q or -X leaves out the queue {QUEUE}"),
    ],
)
def test_an_option_that_is_not_served_is_refused_by_name(options: list[str], said: str) -> None:
    given = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "BROKER_URL": "redis://127.0.0.1:1/0"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    environ |= {f"SLICEWAY_{name}": value for name, value in given.items()} | {"SLICEWAY_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker", *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_CONFIG, done.stderr
    [line] = done.stderr.splitlines()
    event = json.loads(line)
    assert (event["event"], event["error"].startswith(said), bool(event["advice"])) == ("worker.refused", True, True)
