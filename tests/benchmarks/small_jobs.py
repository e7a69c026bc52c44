"""Many small jobs by batch: how fast they are done, and how little of them is ever in the broker.

    python tests/benchmarks/small_jobs.py [--jobs 10000] [--kib 64]

The length of the queue and the broker's memory, every 50 ms from before the first request to after the last job. Every
object is compared with its file at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import httpx
import psycopg
import redis
from measure import KIB, MIB, Sampler, api_of, machine, out, show, system

from worker.db.pool import conninfo
from worker.jobs.task_names import QUEUE
from worker.local.state import APPID, BUCKET

if TYPE_CHECKING:
    from worker.local.state import State
    from worker.local.system import Running

EVERY_S = 0.05
BATCH = 1000
DEADLINE_S = 1800.0
FOLDER = "small"


def main() -> None:
    """Measure once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--kib", type=int, default=64, help="size of each file (default: %(default)s)")
    given = parser.parse_args()
    with system() as (state, running), redis.Redis.from_url(running.settings.broker_url.for_kombu()) as broker:
        out.print(f"Making {given.jobs} files of {given.kib} KiB")
        sha1s = make_files(state, given.jobs, given.kib * KIB)
        idle_bytes = broker.info("memory")["used_memory"]
        sampler = Sampler(EVERY_S, lambda: (broker.llen(QUEUE), broker.info("memory")["used_memory"]))
        sampler.start()
        began = time.monotonic()
        answers_s = enqueue(running, list(sha1s))
        enqueued_s = time.monotonic() - began
        states = wait(running, given.jobs)
        took_s = time.monotonic() - began
        samples = sampler.finish()
        notes = machine(running)
        equal = sum(stored_sha1(running, name) == sha1 for name, sha1 in sha1s.items())
    lengths, memory = [length for length, _ in samples], [used for _, used in samples]
    rows = [
        ("enqueued, each batch of 1,000: median, most", f"{statistics.median(answers_s):.2f}, {max(answers_s):.2f} s"),
        ("enqueued, all", f"{enqueued_s:.1f} s, {given.jobs / enqueued_s:.0f} jobs/s"),
        ("done, all, from the first request on", f"{took_s:.1f} s, {given.jobs / took_s:.0f} jobs/s"),
        ("messages in the broker: median, most", f"{statistics.median(lengths):.0f}, {max(lengths)}"),
        ("broker memory: idle, most", f"{idle_bytes / MIB:.2f}, {max(memory) / MIB:.2f} MiB"),
        ("jobs by state", ", ".join(f"{count} {state}" for state, count in states.items())),
        ("objects equal to their files", f"{equal} of {given.jobs}"),
    ]
    show(f"{given.jobs} jobs of {given.kib} KiB", ("what", "measured"), rows, [*notes, f"{len(samples)} samples"])
    if states != {"succeeded": given.jobs} or equal != given.jobs:
        sys.exit(1)


def make_files(state: State, count: int, size_bytes: int) -> dict[str, str]:
    """Write the files; returns name -> SHA-1."""
    (state.files / FOLDER).mkdir()
    sha1s = {}
    for number in range(count):
        content = os.urandom(size_bytes)
        name = f"{FOLDER}/{number:06}.bin"
        (state.files / name).write_bytes(content)
        sha1s[name] = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return sha1s


def enqueue(running: Running, names: list[str]) -> list[float]:
    """Enqueue all by batch; returns the seconds that each request took."""
    took_s = []
    with api_of(running) as api:
        for start in range(0, len(names), BATCH):
            jobs = [
                {"source": {"kind": "file", "root": "files", "path": name}, "store": "main", "key": name}
                for name in names[start : start + BATCH]
            ]
            began = time.monotonic()
            answer = api.post("/v1/jobs/batch", json={"jobs": jobs}).raise_for_status()
            took_s.append(time.monotonic() - began)
            refused = [result for result in answer.json()["results"] if result["status"] != httpx.codes.ACCEPTED]
            if refused:
                sys.exit(f"refused: {refused[0]}")
    return took_s


def wait(running: Running, count: int) -> dict[str, int]:
    """Return state -> jobs, once every job has ended or the time is over."""
    deadline = time.monotonic() + DEADLINE_S
    with psycopg.connect(conninfo(running.settings.database_url), autocommit=True) as database:
        while True:
            rows = database.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
            states: dict[str, int] = dict(rows)
            over = sum(states.get(state, 0) for state in ("succeeded", "failed", "cancelled"))
            if over == count or time.monotonic() > deadline:
                return states
            running.supervisor.wait(0.25)


def stored_sha1(running: Running, name: str) -> str:
    answer = _objects.get(f"{running.emulator_url}/files/v2/{APPID}/{BUCKET}/{name}").raise_for_status()
    return hashlib.sha1(answer.content, usedforsecurity=False).hexdigest()


_objects = httpx.Client(trust_env=False, timeout=30)

if __name__ == "__main__":
    main()
