"""Enqueueing over HTTP: one by one, by batch, while uploads run; how soon the first byte goes out of an idle system.

    python tests/benchmarks/enqueue.py [--seconds 5] [--rounds 5]

The client writes requests to kept-alive sockets by hand, so that what is measured is the API and the database.
"""

from __future__ import annotations

import json
import re
import socket
import statistics
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from bench_environment import KEY, BenchEnvironment, bench_environment, halted
from measure import KIB, MIB, api_of, cpu_by_role
from report import Report, parser

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 8
STEADY_PER_S = 300
IDLE_JOBS = 100
LARGE_MIB, SLICE_MIB = 1024, 3
UNDER_WAY = 16  # slices that the store has when the first job is enqueued
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0, help="of each run (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment("--discard", settings={"SLICEWAY_MAX_LIVE_JOBS": "10000000"}) as site:
        site.file("small", 64 * KIB)
        site.file(KEY, LARGE_MIB * MIB)
        idle = first_bytes(site)
        runs = [while_uploading(site, given.seconds, f"steady{number}") for number in range(given.rounds)]
        steady = sorted(runs, key=lambda took_s: percentile(took_s, 0.99))[given.rounds // 2]
        with halted(site):
            singly = [flood(site, given.seconds, one) for _ in range(given.rounds)]
            batches = [flood(site, given.seconds, thousand) for _ in range(given.rounds)]
        report.seen_on(site.running)
    rows = [
        ("one by one, 8 connections", *figures(singly)),
        ("by batch of 1,000, 8 connections", *figures(batches)),
        (f"{STEADY_PER_S}/s while uploads run", f"{STEADY_PER_S}", *percentiles(steady), ""),
        ("enqueue to the first byte of the slice, idle", "", *percentiles(idle), ""),
    ]
    columns = ("what", "jobs/s", "p50 ms", "p99 ms", "API and database, CPU ms a job")
    report.table(f"Enqueue, medians of {given.rounds} runs of {given.seconds:g} s", columns, rows)
    report.figures = {
        "one by one/s": rate(singly), "by batch/s": rate(batches), "p99 ms while uploads run": percentile(steady, 0.99),
        "p50 ms to the first byte": percentile(idle, 0.5), "p99 ms to the first byte": percentile(idle, 0.99),
    }  # fmt: skip
    report.publish(given.json)


class Line:
    """A connection that is kept."""

    def __init__(self, site: BenchEnvironment) -> None:
        settings = site.running.settings
        self._head = (
            f"Host: bench\r\nAuthorization: Bearer {site.running.api_key}\r\nContent-Type: application/json\r\n"
        )
        self._socket = socket.create_connection((settings.api_host, settings.api_port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, document: object, more: str = "") -> float:
        """Send a request and read its answer; returns the seconds. Anything but 2xx ends the benchmark."""
        body = json.dumps(document).encode()
        began = time.perf_counter()
        head = f"POST {path} HTTP/1.1\r\n{self._head}{more}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(1 << 16)
        top, _, rest = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(top)
        while length and len(rest) < int(length[1]):
            rest += self._socket.recv(1 << 20)
        assert top.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")), (top, rest[:300])
        return time.perf_counter() - began


def document(key: str) -> dict[str, Any]:
    return {"source": {"kind": "file", "root": "files", "path": "small"}, "store": "store3", "key": key}


def one(line: Line, name: str) -> tuple[int, float]:
    return 1, line.post("/v1/jobs", document(name), f"Idempotency-Key: {name}\r\n")


def thousand(line: Line, name: str) -> tuple[int, float]:
    return 1000, line.post("/v1/jobs/batch", {"jobs": [document(f"{name}/{number}") for number in range(1000)]})


def flood(
    site: BenchEnvironment, seconds: float, send: Callable[[Line, str], tuple[int, float]]
) -> tuple[float, list[float], float]:
    """Send from several connections, as fast as they are answered: jobs a second, seconds of each, CPU of each."""
    took: list[tuple[int, float]] = []
    stem = f"{time.time_ns():x}"
    before, began = cpu_by_role(), time.perf_counter()

    def connection(number: int) -> None:
        line, sent = Line(site), 0
        while time.perf_counter() - began < seconds:
            sent += 1
            took.append(send(line, f"{stem}/{number}/{sent}"))

    threads = [threading.Thread(target=connection, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, after = time.perf_counter() - began, cpu_by_role()
    jobs = sum(count for count, _ in took)
    used_s = sum(after[role] - before[role] for role in ("api", "postgres"))
    return jobs / wall_s, [each for _, each in took], used_s / jobs


def while_uploading(site: BenchEnvironment, seconds: float, stem: str) -> list[float]:
    """Enqueue at a steady rate while large files go up; the seconds of each request, from when it was due."""
    took: list[float] = []
    site.control.clear_requests()
    large = [f"{stem}-{number}" for number in range(1 + int(seconds))]  # one more than go up meanwhile
    for name in large:
        (site.files / name).hardlink_to(site.files / KEY)
    upload = threading.Thread(target=partial(site.upload, large, slice_mib=SLICE_MIB))
    upload.start()
    assert site.control.requests(op="data", code=0, count=UNDER_WAY, timeout_s=30)[UNDER_WAY - 1 :], "no upload"
    began = time.perf_counter()

    def connection(number: int) -> None:
        line = Line(site)
        for turn in range(int(seconds * STEADY_PER_S / CONNECTIONS)):
            due = began + (turn * CONNECTIONS + number) / STEADY_PER_S
            threading.Event().wait(max(0.0, due - time.perf_counter()))
            line.post("/v1/jobs", document(f"{stem}/{number}/{turn}"))
            took.append(time.perf_counter() - due)

    threads = [threading.Thread(target=connection, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = len(site.control.requests(op="data", code=0))
    assert sent < len(large) * -(-LARGE_MIB // SLICE_MIB), "the uploads were over first"
    upload.join()
    return took


def first_bytes(site: BenchEnvironment) -> list[float]:
    """One job at a time on an idle system: from the request until the store has its first byte."""
    took = []
    with api_of(site.running) as api:
        for number in range(IDLE_JOBS):
            key = f"idle/{number}"
            began = time.monotonic()
            job = api.post("/v1/jobs", json=document(key)).raise_for_status().json()
            api.get(f"/v1/jobs/{job['id']}", params={"wait": "10s"}).raise_for_status()
            [entry] = site.control.requests(op="upload", path=key)
            took.append(entry["began_s"] - began)
    return took


def figures(runs: list[tuple[float, list[float], float]]) -> tuple[str, ...]:
    """Rate, percentiles over all requests, and CPU, of the runs' medians."""
    all_s = [each for _, took, _ in runs for each in took]
    used_s = statistics.median(run[2] for run in runs)
    return f"{rate(runs):.0f}", *percentiles(all_s), f"{used_s * 1e3:.3f}"


def rate(runs: list[tuple[float, list[float], float]]) -> float:
    """Jobs a second."""
    return statistics.median(run[0] for run in runs)


def percentiles(took_s: list[float]) -> tuple[str, str]:
    """The median and the 99th percentile, as they are read."""
    return f"{percentile(took_s, 0.5):.1f}", f"{percentile(took_s, 0.99):.1f}"


def percentile(took_s: list[float], part: float) -> float:
    """The milliseconds within which this part of all was done."""
    return sorted(took_s)[min(int(len(took_s) * part), len(took_s) - 1)] * 1e3


if __name__ == "__main__":
    main()
