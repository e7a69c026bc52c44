"""A large file through `sliceway put`: how much memory each process takes while it goes up.

    python tests/benchmarks/memory_4gib.py [--mib 4096]

PSS (from smaps_rollup: private pages, and a share of the shared ones) of every process, each half second from before
the upload to after it. The object is compared with the file at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
from measure import MIB, Sampler, api_of, descendants, machine, out, pss_bytes, role_of, show, system

from worker.local.state import APPID, BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from worker.local.system import Running

EVERY_S = 0.5
NAME = "large.bin"
PUT = "sliceway put"


def main() -> None:
    """Measure once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=4096, help="size of the file (default: %(default)s)")
    size_bytes = parser.parse_args().mib * MIB
    with system() as (state, running):
        out.print(f"Making a file of {size_bytes / 2**30:.2f} GiB")
        sha1 = make_file(state.files / NAME, size_bytes)
        roles: dict[int, str] = {}
        sampler = Sampler(EVERY_S, lambda: read_memory(roles))
        sampler.start()
        took_s = put(state.files / NAME, running)
        samples = sampler.finish()
        notes = machine(running)
        view = newest_job(running)
        equal = download_sha1(running) == sha1
    rows = rows_of(roles, samples)
    title = (
        f"{size_bytes / 2**30:.2f} GiB in {took_s:.1f} s ({size_bytes / took_s / 1e6:.0f} MB/s by the whole command)"
    )
    show(title, ("process", "PSS before, MiB", "median", "most"), rows, notes)
    slices = view["result"]["slices"]
    out.print(
        f"  {slices['slices']} slices, sent {slices['sends']} times; object equal: {equal}; {len(samples)} samples"
    )
    if not equal:
        sys.exit(1)


def read_memory(roles: dict[int, str]) -> dict[int, int]:
    """The PSS of every process of the system, each by its number; ``roles`` learns what the new ones are."""
    sizes = {pid: size for pid in descendants(os.getpid()) if (size := pss_bytes(pid)) is not None}
    for pid in sizes.keys() - roles.keys():
        roles[pid] = role_of(pid)
    return sizes


def make_file(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("wb") as file:
        for _ in range(0, size_bytes, MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def put(file: Path, running: Running) -> float:
    """Run `sliceway put … --wait` and return the seconds that it took."""
    settings = running.settings
    env = os.environ | {
        "SLICEWAY_STORES_FILE": str(settings.stores_file),
        "SLICEWAY_STATE_DIR": str(settings.state_dir),
        "SLICEWAY_API_URL": str(settings.api_url),
        "SLICEWAY_API_KEY": running.api_key,
    }
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "worker.cli", "put", str(file), f"main:{NAME}", "--wait"], env=env, check=True
    )
    return time.monotonic() - began


def newest_job(running: Running) -> dict[str, dict[str, dict[str, int]]]:
    with api_of(running) as api:
        [view] = api.get("/v1/jobs", params={"limit": 1}).raise_for_status().json()["items"]
    return dict(view)


def download_sha1(running: Running) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    url = f"{running.emulator_url}/files/v2/{APPID}/{BUCKET}/{NAME}"
    with httpx.stream("GET", url, trust_env=False) as answer:
        answer.raise_for_status()
        for piece in answer.iter_raw():
            digest.update(piece)
    return digest.hexdigest()


def rows_of(roles: dict[int, str], samples: list[dict[int, int]]) -> list[tuple[str, ...]]:
    """A row for each process; those of PostgreSQL, which come and go, together."""
    rows = []
    for pid, role in sorted(roles.items(), key=lambda each: (each[1], each[0])):
        sizes = [sample[pid] for sample in samples if pid in sample]
        if role in {"postgres", "gone"} or (role != PUT and pid not in samples[0]):
            continue
        if role != PUT and len(sizes) < len(samples):
            sys.exit(f"{role} {pid} ended on the way")
        rows.append(row_of(f"{role} {pid}", sizes))
    servers = {pid for pid, role in roles.items() if role == "postgres"}
    together = [sum(size for pid, size in sample.items() if pid in servers) for sample in samples]
    return [*rows, row_of("postgres, all", together)]


def row_of(process: str, sizes: list[int]) -> tuple[str, ...]:
    return process, *(f"{size / MIB:.0f}" for size in (sizes[0], statistics.median(sizes), max(sizes)))


if __name__ == "__main__":
    main()
