"""What an upload costs when the file is a hundred times as large: a sparse file against a store that forgets it.

    python tests/benchmarks/flat_cost.py [--gib 1 100]

CPU of Sliceway for each slice of 3 MiB, and the memory of a worker process and of the broker while it goes on.
"""

from __future__ import annotations

import argparse
import os

import redis
from bed import KEY, OURS, bed
from rig import MIB, Sampler, descendants, machine, pss_bytes, role_of, show

GIB = 1024 * MIB
EVERY_S = 1.0


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 100], help="sizes (default: %(default)s)")
    given = parser.parse_args()
    rows = []
    with bed("--discard") as site, redis.Redis.from_url(site.running.settings.broker_url) as broker:
        site.file(KEY, GIB)
        site.upload([KEY], slice_mib=3)
        for gib in given.gib:
            site.sparse(KEY, gib * GIB)
            sampler = Sampler(EVERY_S, lambda: (worker_bytes(), broker.info("memory")["used_memory"]))
            sampler.start()
            run = site.upload([KEY], slice_mib=3)
            samples = sampler.finish()
            slices = -(-gib * GIB // (3 * MIB))
            cpu = [f"{run.cpu_s.get(role, 0.0) / slices * 1e3:.2f}" for role in OURS if role != "worker parent"]
            memory = [f"{max(each) / MIB:.1f}" for each in zip(*samples, strict=True)]
            speed, cpu_ms = gib * GIB / run.wall_s / 1e6, run.client_s / slices * 1e3
            rows.append((f"{gib} GiB", f"{slices}", f"{speed:.0f}", f"{cpu_ms:.2f}", *cpu, *memory))
        notes = machine(site.running)
    columns = (
        "file",
        "slices",
        "MB/s",
        "CPU ms a slice",
        "api",
        "workers",
        "postgres",
        "valkey",
        "worker MiB",
        "broker MiB",
    )
    show("The same upload, larger", columns, rows, notes)


def worker_bytes() -> int:
    """The most that a worker process takes now."""
    workers = [pid for pid in descendants(os.getpid()) if role_of(pid) == "worker process"]
    return max((pss_bytes(pid) or 0 for pid in workers), default=0)


if __name__ == "__main__":
    main()
