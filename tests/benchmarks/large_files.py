"""One large file: Sliceway beside the driver alone, the vendor's SDKs, and a queue as one would otherwise build it.

    python tests/benchmarks/large_files.py [--mib 1024] [--rounds 5] [--few | --kept]

All take turns in every round, with one file that has been read before, at a store that receives and forgets, so that
what is measured is the client. A ratio is that of the two in the same round, of which the median is printed; the raw
limit in it is the driver alone. With ``--few`` only Sliceway, the driver and the SDK, its threads four: for a file with
which the others take an hour. With ``--kept`` Sliceway and the SDK at a store that keeps what it gets.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import peers
from bench_environment import HERE, KEY, BenchEnvironment, Run, bench_environment
from measure import MIB, out, scratch
from plain_worker import plain_environ, plain_worker
from report import Report, parser

from worker.runtime.concurrency import MIN_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

THREADS = (2, 4, 8)
USUAL_THREADS = {3: 4, 1: 4}
FEW = ("Sliceway", "SDK, ", "raw limit: its driver")
AS_IT_COMES = "SDK as it comes: 1 thread, 1 MiB"
COLUMNS = (
    "client, slice size", "MB/s", "least", "most", "x SDK best", "x plain Celery", "x raw limit", "CPU s/GB", "store",
)  # fmt: skip

Takers = dict[str, "Callable[[], Run]"]


@dataclass(frozen=True, slots=True)
class Others:
    """The vendor's SDK with its Python, and its number of threads at each slice size; and the one for Python 3."""

    sdk: tuple[Path, Path] | None
    py3: Path | None
    threads: dict[int, int]


def main() -> None:
    """Measure and print the tables."""
    options = parser(__doc__)
    options.add_argument("--mib", type=int, default=1024, help="size of the file (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    which = options.add_mutually_exclusive_group()
    which.add_argument("--few", action="store_true", help="Sliceway, its driver and the SDK only")
    which.add_argument("--kept", action="store_true", help="Sliceway and the SDK, at a store that keeps what it gets")
    given = options.parse_args()
    all_of_them = not (given.few or given.kept)
    report, size_bytes = Report(), given.mib * MIB
    with scratch() as folder:
        out.print("Fetching the others")
        others = Others(peers.sdk(folder), peers.sdk_py3(folder) if all_of_them else None, dict(USUAL_THREADS))
        with bench_environment(*(() if given.kept else ("--discard",))) as site, plain_worker(site):
            file = site.file(KEY, size_bytes)
            if all_of_them:  # by a part of the file: eighteen uploads of all of it would be a quarter of the run
                choose_threads(site, others, site.file("part", size_bytes // 4))
            takers = at_keeping_store(site, others, file) if given.kept else all_clients(site, others, file)
            if given.few:
                takers = {name: once for name, once in takers.items() if name.startswith(FEW)}
            runs = take_turns(takers, given.rounds)
            report.seen_on(site.running)
    rows = [row(name, size_bytes, runs) for name in runs]
    columns = tuple(column for number, column in enumerate(COLUMNS) if any(each[number] for each in rows))
    rows = [tuple(cell for number, cell in enumerate(each) if COLUMNS[number] in columns) for each in rows]
    store = "keeps, unsynced," if given.kept else "forgets"
    report.table(
        f"{given.mib} MiB, medians of {given.rounds} rounds, at a store that {store} what it gets", columns, rows
    )
    for mib in (3, 1) if all_of_them else ():
        report.figures |= figures(mib, size_bytes, runs)
    report.publish(given.json)


def take_turns(takers: Takers, rounds: int) -> dict[str, list[Run]]:
    """Every one once in each round, after one that does not count: connections, imports, the page cache."""
    runs: dict[str, list[Run]] = {name: [] for name in takers}
    for _ in range(1 + rounds):
        for name, once in takers.items():
            runs[name].append(once())
    return {name: counted for name, (_, *counted) in runs.items()}


def all_clients(site: BenchEnvironment, others: Others, file: Path) -> Takers:
    """All who take part where the store only receives."""
    return dict(_all_clients(site, others, file))


def _all_clients(site: BenchEnvironment, others: Others, file: Path) -> Iterator[tuple[str, Callable[[], Run]]]:
    for mib in (3, 1):
        yield from two(site, others, file, mib)
        yield f"raw limit: its driver alone, {mib} MiB", partial(raw, site, file, mib, "driver")
        yield f"raw limit: bare sockets, {mib} MiB", partial(raw, site, file, mib, "socket")
        yield f"plain Celery, {mib} MiB", partial(plain, site, file, mib)
    if others.sdk:
        yield AS_IT_COMES, partial(vendor, site, others.sdk, file, 1, 1)
    if others.py3:
        yield "qcloud-cos-py3, 3 MiB", partial(third, site, others.py3, file)


def at_keeping_store(site: BenchEnvironment, others: Others, file: Path) -> Takers:
    """Those who show what a store adds that keeps the bytes; and who has it compare them with the file's digest."""
    takers = {name: once for mib in (3, 1) for name, once in two(site, others, file, mib)}
    return takers | {"Sliceway, verify: file (1 MiB)": partial(site.upload, [KEY], slice_mib=1, verify="file")}


def two(site: BenchEnvironment, others: Others, file: Path, mib: int) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Sliceway and the SDK."""
    yield f"Sliceway, {mib} MiB", partial(site.upload, [KEY], slice_mib=mib)
    if others.sdk:
        threads = others.threads[mib]
        yield f"SDK, {threads} threads, {mib} MiB", partial(vendor, site, others.sdk, file, mib, threads)


def raw(site: BenchEnvironment, file: Path, mib: int, by: str) -> Run:
    """The limit: as many processes and threads as Sliceway has, no queue, no checkpoint."""
    sizes = {"slice_bytes": mib * MIB, "processes": os.cpu_count(), "threads": MIN_SLOTS}
    arguments = {"by": by, "file": str(file), **sizes}
    return site.other([sys.executable, HERE / "raw_driver.py"], arguments)


def vendor(site: BenchEnvironment, sdk: tuple[Path, Path] | None, file: Path, mib: int, threads: int) -> Run:
    """The vendor's SDK."""
    assert sdk
    arguments = {"file": str(file), "slice_bytes": mib * MIB, "threads": threads, "sdk": str(sdk[1])}
    return site.other([sdk[0], HERE / "peer_sdk.py"], arguments)


def choose_threads(site: BenchEnvironment, others: Others, file: Path) -> None:
    """Find with how many threads the SDK is fastest here, at each slice size."""
    for mib in others.threads if others.sdk else ():
        runs: dict[int, list[float]] = {threads: [] for threads in THREADS}
        for _ in range(3):
            for threads, took_s in runs.items():
                took_s.append(vendor(site, others.sdk, file, mib, threads).wall_s)
        _, others.threads[mib] = min((median(took_s), threads) for threads, took_s in runs.items())


def third(site: BenchEnvironment, sdk: Path | None, file: Path) -> Run:
    """The vendor's SDK for Python 3: one slice after the other."""
    arguments = {"file": str(file), "slice_bytes": 3 * MIB, "sdk": str(sdk)}
    return site.other([sys.executable, HERE / "peer_py3.py"], arguments)


def plain(site: BenchEnvironment, file: Path, mib: int) -> Run:
    """A Celery task a slice, a chord, results in Redis."""
    arguments = {"what": "large", "files": [str(file)], "slice_bytes": mib * MIB}
    return site.other([sys.executable, HERE / "plain_celery.py"], arguments, plain_environ(site))


def row(name: str, size_bytes: int, runs: dict[str, list[Run]]) -> tuple[str, ...]:
    """The cells of one client."""
    took, mib = runs[name], 3 if "3 MiB" in name else 1
    speeds = [size_bytes / run.wall_s / 1e6 for run in took]
    peers = (reference(runs, "SDK", mib), reference(runs, "plain", mib), reference(runs, "raw limit", mib))
    ratios = [f"{ratio(took, runs[peer]):.2f}" if peer and peer != name else "" for peer in peers]
    used_s, store_s = median(run.client_s for run in took), median(run.cpu_s["emulator"] for run in took)
    return (
        name, f"{median(speeds):.0f}", f"{min(speeds):.0f}", f"{max(speeds):.0f}", *ratios,
        f"{used_s / size_bytes * 1e9:.2f}", f"{store_s / size_bytes * 1e9:.2f}",
    )  # fmt: skip


def figures(mib: int, size_bytes: int, runs: dict[str, list[Run]]) -> dict[str, float]:
    """What the bars ask for, at one slice size."""
    ours, alone = runs[f"Sliceway, {mib} MiB"], runs[f"raw limit: its driver alone, {mib} MiB"]
    others = {
        "x SDK best": reference(runs, "SDK,", mib), "x SDK as it comes": reference(runs, AS_IT_COMES, 1),
        "x plain Celery": f"plain Celery, {mib} MiB", "x raw limit": f"raw limit: its driver alone, {mib} MiB",
    }  # fmt: skip
    slices = -(-size_bytes // (mib * MIB))
    beside_s = median(one.client_s - other.client_s for one, other in zip(ours, alone, strict=True))
    found = {name: ratio(ours, runs[other]) for name, other in others.items() if other}
    found["CPU s/GB"] = median(run.client_s for run in ours) / size_bytes * 1e9
    found["CPU ms a slice beside the driver"] = beside_s / slices * 1e3
    return {f"{mib} MiB: {name}": value for name, value in found.items()}


def reference(runs: dict[str, list[Run]], begin: str, mib: int) -> str:
    """The name of the client that others are compared with; empty if it did not take part."""
    return next((name for name in runs if name.startswith(begin) and f"{mib} MiB" in name), "")


def ratio(ours: list[Run], theirs: list[Run]) -> float:
    """How many times as fast, round by round."""
    return median(other.wall_s / own.wall_s for own, other in zip(ours, theirs, strict=True))


median = statistics.median


if __name__ == "__main__":
    main()
