"""Processes with a wrong wall clock; their monotonic clock stays right.

It uses libfaketime if it is installed (the Python package, or Debian's), else a shim that changes Python's clock only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHIM = Path(__file__).with_name("shifted")
_PRINT_CLOCKS = (sys.executable, "-c", "import time; print(time.time(), time.monotonic())")


def off_by(seconds: int) -> dict[str, str]:
    """Environment variables that shift the wall clock of one process.

    Raises:
        AssertionError: no method works on this machine.
    """
    for variables in (*_libraries(seconds), _shim(seconds)):
        if _works(variables, seconds):
            return variables
    raise AssertionError("neither libfaketime nor the shim shifts a clock here")


def _libraries(seconds: int) -> Iterator[dict[str, str]]:
    package = find_spec("libfaketime")
    folders = [
        Path(folder) / "vendor/libfaketime/src" for folder in (package and package.submodule_search_locations) or ()
    ]
    folders += Path("/usr/lib").glob("*/faketime")
    for folder in folders:
        yield {
            "LD_PRELOAD": str(folder / "libfaketime.so.1"),
            "FAKETIME": f"{seconds:+d}",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the times of files come from the disk
        }


def _shim(seconds: int) -> dict[str, str]:
    return {"PYTHONPATH": str(_SHIM), "CLOCK_OFF_BY_S": str(seconds)}


def _works(variables: dict[str, str], seconds: int) -> bool:
    printed = subprocess.run(
        _PRINT_CLOCKS, env=os.environ | variables, capture_output=True, text=True, timeout=240, check=False
    )
    wall_s, monotonic_s = map(float, printed.stdout.split()) if printed.returncode == 0 else (0.0, 0.0)
    return abs(wall_s - time.time() - seconds) < 60 and abs(monotonic_s - time.monotonic()) < 60
