"""What an upload costs when the file is a hundred times as large: a sparse file against a store that forgets it.

    python tests/benchmarks/flat_cost.py [--gib 1 100]

CPU of Sliceway for each slice of 3 MiB, and the memory of a worker process and of the broker while it goes on.
"""

from __future__ import annotations

import os

import redis
from bench_environment import KEY, OURS, bench_environment
from measure import MIB, Sampler, descendants, pss_bytes, role_of
from report import Report, parser

GIB = 1024 * MIB
EVERY_S = 1.0
COLUMNS = (
    "file", "slices", "MB/s", "CPU ms a slice", "api", "workers", "postgres", "valkey", "worker MiB", "broker MiB",
)  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--gib", type=int, nargs="+", default=[1, 100], help="sizes (default: %(default)s)")
    given = options.parse_args()
    report, rows, costs_ms, memory_mib = Report(), [], [], []
    with (
        bench_environment("--discard") as site,
        redis.Redis.from_url(site.running.settings.broker_url.for_kombu()) as broker,
    ):
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
            memory_mib.append([max(each) / MIB for each in zip(*samples, strict=True)])
            speed, cpu_ms = gib * GIB / run.wall_s / 1e6, run.client_s / slices * 1e3
            costs_ms.append(cpu_ms)
            memory = [f"{each:.1f}" for each in memory_mib[-1]]
            rows.append((f"{gib} GiB", f"{slices}", f"{speed:.0f}", f"{cpu_ms:.2f}", *cpu, *memory))
        report.seen_on(site.running)
    report.table("The same upload, larger", COLUMNS, rows)
    report.figures = {
        "CPU a slice, x of the first": costs_ms[-1] / costs_ms[0],
        "worker PSS, MiB": max(worker for worker, _ in memory_mib),
        "broker MiB": max(broker for _, broker in memory_mib),
    }
    report.publish(given.json)


def worker_bytes() -> int:
    """The most that a worker process takes now."""
    workers = [pid for pid in descendants(os.getpid()) if role_of(pid) == "worker process"]
    return max((pss_bytes(pid) or 0 for pid in workers), default=0)


if __name__ == "__main__":
    main()
