"""A store that takes its time over every request: how near the upload comes to what waiting alone allows.

    python tests/benchmarks/latency.py [--rounds 5]

The emulator answers each request 20 ms or 100 ms late. With `slots` slices under way at once, waiting alone allows
slots x slice / latency; slots are worker processes x threads, or the window of the job if that is smaller.
"""

from __future__ import annotations

import argparse
import statistics

from bed import KEY, bed
from rig import MIB, machine, show

PROCESSES = (1, 2, 4)
LATENCIES_S = (0.02, 0.1)
SLICES = 400


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for processes in PROCESSES:
        with bed(settings={"SLICEWAY_WORKER_PROCESSES": str(processes)}) as site:
            settings = site.running.settings
            slots = min(processes * settings.worker_threads, settings.window)
            site.file(KEY, SLICES * MIB)
            site.upload([KEY], slice_mib=1)
            for latency_s in LATENCIES_S:
                rule = site.control.add_rule("delay", delay_s=latency_s)
                runs = [site.upload([KEY], slice_mib=1) for _ in range(given.rounds)]
                site.control.remove_rule(rule)
                speed = SLICES / statistics.median(run.wall_s for run in runs)
                allowed = slots / latency_s
                cpu_ms = statistics.median(run.client_s for run in runs) / SLICES * 1e3
                place = f"{processes} x {settings.worker_threads}", f"{latency_s * 1e3:.0f} ms"
                rows.append((*place, f"{speed:.0f}", f"{allowed:.0f}", f"{speed / allowed:.2f}", f"{cpu_ms:.2f}"))
            notes = machine(site.running)
    columns = ("processes x threads", "latency", "slices/s", "waiting alone allows", "ratio", "CPU ms a slice")
    show(f"{SLICES} slices of 1 MiB, medians of {given.rounds}", columns, rows, notes)


if __name__ == "__main__":
    main()
