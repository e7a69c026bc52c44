"""A role does not wait at its end for a database that is away, and survives the end of its terminal."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from worker.local.process import wait_until
from worker.signals import hangups_wait

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = """
import signal, sys
from worker.config.settings import load_settings
from worker.signals import force_exit_if_database_is_away
url = {"SLICEWAY_DATABASE_URL": f"postgresql://me:fake-secret-1@127.0.0.1:{sys.argv[1]}/x"}
force_exit_if_database_is_away(load_settings(url | {"SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0"}), 7)
signal.pause()
"""
RUNS_ON = """
import signal, sys
from worker.telemetry.log import set_up
from worker.signals import run_on_after_hangup
set_up("text")
run_on_after_hangup()
print("ready", flush=True)
input()
print("ran on")
"""
LATE = """
import signal, sys
from worker.signals import run_on_after_hangup
print("started", flush=True)
input()
asked = []
run_on_after_hangup(lambda: asked.append(True))
print(asked, flush=True)
"""


def test_a_silent_database_does_not_delay_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        assert subprocess.run([sys.executable, "-c", LEAVES, port], check=False, timeout=240).returncode == 7


@pytest.mark.parametrize("before", [[], ["nohup"]])
def test_a_closed_terminal_is_a_line_in_the_log_and_no_more(tmp_path: Path, before: list[str]) -> None:
    log = tmp_path / "log"
    with log.open("wb") as errors:
        role = subprocess.Popen(
            [*before, sys.executable, "-c", RUNS_ON],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert role.stdout
    assert role.stdout.readline() == "ready\n"
    role.send_signal(signal.SIGHUP)
    if not before:
        assert wait_until(lambda: "signal.hangup" in log.read_text(), timeout_s=120)
    said, _ = role.communicate("go on\n", timeout=120)
    assert (role.returncode, said) == (0, "ran on\n")
    assert log.read_text().count("signal.hangup") == (0 if before else 1)


def test_a_signal_before_the_handler_of_a_new_process_waits_for_it() -> None:
    with hangups_wait():
        role = subprocess.Popen(
            [sys.executable, "-c", LATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert role.stdout
    assert role.stdout.readline() == "started\n"
    role.send_signal(signal.SIGHUP)
    said, _ = role.communicate("go on\n", timeout=120)
    assert (role.returncode, said) == (0, "[True]\n")
