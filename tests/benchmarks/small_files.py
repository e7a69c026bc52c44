"""Small files, each a job, end to end: Sliceway beside plain Celery that uploads the same files.

    python tests/benchmarks/small_files.py [--jobs 1000] [--kib 64] [--rounds 5]

Sliceway: from the first request of a batch until every object is proven. Plain Celery: from the first `apply_async`
until the last result; and tasks that do nothing, for what the machine can do at all.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from bed import HERE, Bed, Run, bed
from plain_worker import plain_environ, plain_worker
from rig import KIB, machine, show


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="in each round (default: %(default)s)")
    parser.add_argument("--kib", type=int, default=64, help="size of each file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = parser.parse_args()
    runs: dict[str, list[Run]] = {"Sliceway": [], "plain Celery": [], "Celery tasks that do nothing": []}
    with bed() as site, plain_worker(site):
        names = [f"small/{number:05}" for number in range(given.jobs)]
        files = [(f"plain/{name}", str(site.file(name, given.kib * KIB))) for name in names]
        for _ in range(1 + given.rounds):
            runs["Sliceway"].append(site.upload(names, slice_mib=3))
            runs["plain Celery"].append(ask(site, what="small", files=files))
            runs["Celery tasks that do nothing"].append(ask(site, what="nothing", count=given.jobs))
        notes = machine(site.running)
    rows = []
    for name, (_, *counted) in runs.items():
        rate = statistics.median(given.jobs / run.wall_s for run in counted)
        cpu_ms = statistics.median(run.client_s for run in counted) / given.jobs * 1e3
        store_ms = statistics.median(run.cpu_s["emulator"] for run in counted) / given.jobs * 1e3
        rows.append((name, f"{rate:.0f}", f"{cpu_ms:.2f}", f"{store_ms:.2f}"))
    columns = ("what", "jobs/s", "CPU ms a job, all but the store", "the store")
    show(f"{given.jobs} files of {given.kib} KiB, medians of {given.rounds} rounds", columns, rows, notes)


def ask(site: Bed, **words: object) -> Run:
    return site.other([sys.executable, HERE / "plain_celery.py"], env=plain_environ(site), **words)


if __name__ == "__main__":
    main()
