"""The process of a run's store: the emulator, which answers every init with a small slice size."""

from __future__ import annotations

import dataclasses
import sys

from tests.faults.chaos.workload import SLICE_BYTES
from worker.emulator.__main__ import read_arguments, run

if __name__ == "__main__":
    run(dataclasses.replace(read_arguments(sys.argv[1:]), forced_slice_size=SLICE_BYTES))
