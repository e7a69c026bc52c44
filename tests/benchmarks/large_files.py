"""One large file: Sliceway beside the driver alone, the vendor's SDKs, and a queue as one would otherwise build it.

    python tests/benchmarks/large_files.py [--mib 1024] [--rounds 5]

All take turns in every round, at one store, with one file that has been read before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import peers
from bed import HERE, KEY, Bed, Run, bed
from plain_worker import plain_environ, plain_worker
from rig import MIB, machine, out, scratch, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

THREADS = (2, 4, 8)
Contender = tuple[str, "Callable[[], Run]"]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = parser.parse_args()
    with ExitStack() as stack:
        site, folder = stack.enter_context(bed()), stack.enter_context(scratch())
        out.print(f"Making a file of {given.mib} MiB, and fetching the others")
        file = site.file(KEY, given.mib * MIB)
        stack.enter_context(plain_worker(site))
        contenders = list(everybody(site, folder, file))
        for _, once in contenders:  # connections, imports, the page cache
            once()
        runs: dict[str, list[Run]] = {name: [] for name, _ in contenders}
        for _ in range(given.rounds):
            for name, once in contenders:
                runs[name].append(once())
        notes = machine(site.running)
    rows = [row(name, given.mib * MIB, took) for name, took in runs.items()]
    columns = ("client, slice size", "MB/s", "least", "most", "CPU s/GB, all but the store", "store")
    show(f"{given.mib} MiB, medians of {given.rounds} rounds", columns, rows, notes)


def everybody(site: Bed, folder: Path, file: Path) -> Iterator[Contender]:
    """All who take part, at both slice sizes."""
    sdk, py3 = peers.sdk(folder), peers.sdk_py3(folder)
    for mib in (3, 1):
        yield f"Sliceway, {mib} MiB", lambda mib=mib: site.upload([KEY], slice_mib=mib)
        yield f"its driver alone, {mib} MiB", lambda mib=mib: raw(site, file, mib)
        if sdk is not None:
            threads = best(site, sdk, file, mib)
            yield f"SDK, {threads} threads, {mib} MiB", lambda mib=mib, n=threads: vendor(site, sdk, file, mib, n)
        yield f"plain Celery, {mib} MiB", lambda mib=mib: plain(site, file, mib)
    if sdk is not None:
        yield "SDK as it comes: 1 thread, 1 MiB", lambda: vendor(site, sdk, file, 1, 1)
    if py3 is not None:
        yield "qcloud-cos-py3, 3 MiB", lambda: third(site, py3, file)
    yield "Sliceway, verify: file (1 MiB)", lambda: site.upload([KEY], slice_mib=1, verify="file")


def raw(site: Bed, file: Path, mib: int) -> Run:
    words = {"path": "raw", "file": str(file), "slice_bytes": mib * MIB, "processes": 2, "threads": 4}
    return site.other([sys.executable, HERE / "raw_driver.py"], **words)


def vendor(site: Bed, sdk: tuple[Path, Path], file: Path, mib: int, threads: int) -> Run:
    words = {"path": "sdk", "file": str(file), "slice_bytes": mib * MIB, "threads": threads, "sdk": str(sdk[1])}
    return site.other([sdk[0], HERE / "peer_sdk.py"], **words)


def best(site: Bed, sdk: tuple[Path, Path], file: Path, mib: int) -> int:
    """The number of threads with which the SDK is fastest here."""
    return min(THREADS, key=lambda threads: min(vendor(site, sdk, file, mib, threads).wall_s for _ in range(2)))


def third(site: Bed, sdk: Path, file: Path) -> Run:
    words = {"path": "py3", "file": str(file), "slice_bytes": 3 * MIB, "sdk": str(sdk)}
    return site.other([sys.executable, HERE / "peer_py3.py"], **words)


def plain(site: Bed, file: Path, mib: int) -> Run:
    words = {"what": "large", "path": "plain", "file": str(file), "slice_bytes": mib * MIB}
    return site.other([sys.executable, HERE / "plain_celery.py"], env=plain_environ(site), **words)


def row(name: str, size_bytes: int, runs: list[Run]) -> tuple[str, ...]:
    speeds = [size_bytes / run.wall_s / 1e6 for run in runs]
    used_s, store_s = (
        statistics.median(each) for each in zip(*((run.client_s, run.cpu_s["emulator"]) for run in runs), strict=True)
    )
    return (
        name, f"{statistics.median(speeds):.0f}", f"{min(speeds):.0f}", f"{max(speeds):.0f}",
        f"{used_s / size_bytes * 1e9:.2f}", f"{store_s / size_bytes * 1e9:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
