"""What a client of the benchmarks prints: the seconds that it took, and those of the CPU, its start left out."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def timed() -> Iterator[None]:
    """Print {"s": seconds, "cpu_s": seconds of this process and of the children that it has waited for}."""
    began, used = time.perf_counter(), sum(os.times()[:4])
    yield
    took_s = time.perf_counter() - began
    sys.stdout.write(json.dumps({"s": took_s, "cpu_s": sum(os.times()[:4]) - used}) + "\n")
