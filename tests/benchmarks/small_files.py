"""Small files, each a job, end to end: Sliceway beside plain Celery that uploads the same files.

    python tests/benchmarks/small_files.py [--jobs 400] [--kib 64] [--rounds 5]

Sliceway: from the first request of a batch until every object is proven. Plain Celery, from the first message until the
last result: each file as a large one is uploaded, by a task that opens a session, one for the slice, and a chord; and
each in one request. Tasks that do nothing show what the machine can do at all: run and waited for as plain Celery's
are; and, four times as many, by two solo workers without results and events, the sending left out.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

from bench_environment import HERE, BenchEnvironment, Run, bench_environment
from measure import KIB
from plain_worker import bare_workers, plain_environ, plain_worker
from report import Report, parser

OURS, CHORD, ONE = "Sliceway", "plain Celery, a chord a file", "plain Celery, one request a file"
NOTHING, BARE = "Celery tasks that do nothing", "the same, two solo workers, no results, no events"


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=400, help="in each round (default: %(default)s)")
    options.add_argument("--kib", type=int, default=64, help="size of each file (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment() as site, plain_worker(site), bare_workers(site):
        names = [f"{number:05}" for number in range(given.jobs)]
        files = [str(site.file(name, given.kib * KIB)) for name in names]
        counts = dict.fromkeys((OURS, CHORD, ONE, NOTHING), given.jobs) | {BARE: 4 * given.jobs}
        takers = {
            OURS: partial(site.upload, names, slice_mib=3),
            CHORD: partial(ask, site, "plain_celery.py", what="chord", files=files),
            ONE: partial(ask, site, "plain_celery.py", what="small", files=files),
            NOTHING: partial(ask, site, "plain_celery.py", what="nothing", count=given.jobs),
            BARE: partial(ask, site, "bare_celery.py", count=counts[BARE]),
        }
        turns = [{name: once() for name, once in takers.items()} for _ in range(1 + given.rounds)][1:]
        report.seen_on(site.running)
    rows = [row(name, counts[name], turns) for name in takers]
    columns = ("what", "jobs/s", "Sliceway is x", "CPU ms a job, all but the store", "the store")
    report.table(f"{given.jobs} files of {given.kib} KiB, medians of {given.rounds} rounds", columns, rows)
    report.figures = {
        "jobs/s": rate(OURS, given.jobs, turns), "no-op/s": rate(BARE, counts[BARE], turns),
        "x a chord a file": ratio(CHORD, turns), "x one request a file": ratio(ONE, turns),
    }  # fmt: skip
    report.publish(given.json)


def ask(site: BenchEnvironment, script: str, **arguments: object) -> Run:
    """Have plain Celery do something."""
    return site.other([sys.executable, HERE / script], arguments, plain_environ(site))


def row(name: str, jobs: int, turns: list[dict[str, Run]]) -> tuple[str, ...]:
    """The cells of one taker."""
    cpu_ms = statistics.median(turn[name].client_s for turn in turns) / jobs * 1e3
    store_ms = statistics.median(turn[name].cpu_s["emulator"] for turn in turns) / jobs * 1e3
    times = f"{ratio(name, turns):.2f}" if name in {CHORD, ONE} else ""
    return name, f"{rate(name, jobs, turns):.0f}", times, f"{cpu_ms:.2f}", f"{store_ms:.2f}"


def rate(name: str, jobs: int, turns: list[dict[str, Run]]) -> float:
    """Jobs a second."""
    return statistics.median(jobs / turn[name].wall_s for turn in turns)


def ratio(name: str, turns: list[dict[str, Run]]) -> float:
    """How many times as fast Sliceway is, round by round."""
    return statistics.median(turn[name].wall_s / turn[OURS].wall_s for turn in turns)


if __name__ == "__main__":
    main()
