"""The command line in a process of its own, which ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.deadline import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Mapping


def sliceway(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment of its own."""
    argv = [sys.executable, "-m", "worker.cli", *arguments]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def findings(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what the doctor finds, by check."""
    done = sliceway(environ, "doctor", "--json")
    assert done.stdout, done.stderr
    return {each["check"]: each for each in json.loads(done.stdout)}
