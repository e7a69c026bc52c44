"""Wall clocks that are off, for processes that a test starts; the clocks that nobody sets stay right.

libfaketime where it can be had (the package of that name, or Debian's), else a shim for Python alone.
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
_SAYS_THE_TIME = (sys.executable, "-c", "import time; print(time.time(), time.monotonic())")


def off_by(seconds: int) -> dict[str, str]:
    """Variables that set the wall clock of a process off, and of no other.

    Raises:
        AssertionError: nothing here can do that.
    """
    for variables in (*_libraries(seconds), _shim(seconds)):
        if _works(variables, seconds):
            return variables
    raise AssertionError("neither libfaketime nor its replacement sets a clock off here")


def _libraries(seconds: int) -> Iterator[dict[str, str]]:
    package = find_spec("libfaketime")
    places = [
        Path(folder) / "vendor/libfaketime/src" for folder in (package and package.submodule_search_locations) or ()
    ]
    places += Path("/usr/lib").glob("*/faketime")
    for place in places:
        yield {
            "LD_PRELOAD": str(place / "libfaketime.so.1"),
            "FAKETIME": f"{seconds:+d}",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the times of files come from the disk
        }


def _shim(seconds: int) -> dict[str, str]:
    return {"PYTHONPATH": str(_SHIM), "CLOCK_OFF_BY_S": str(seconds)}


def _works(variables: dict[str, str], seconds: int) -> bool:
    said = subprocess.run(
        _SAYS_THE_TIME, env=os.environ | variables, capture_output=True, text=True, timeout=240, check=False
    )
    wall_s, monotonic_s = map(float, said.stdout.split()) if said.returncode == 0 else (0.0, 0.0)
    return abs(wall_s - time.time() - seconds) < 60 and abs(monotonic_s - time.monotonic()) < 60
