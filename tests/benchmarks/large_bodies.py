"""What one client with a key costs the others: the largest bodies, good and bad, while /healthz is asked.

    python tests/benchmarks/large_bodies.py [--seconds 5]

Several connections send the same body without a pause; another one asks for /healthz every 10 ms. Memory is the most
that the API's process has had resident, which never falls: each body runs on the same API, the costliest last.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from bench_environment import BenchEnvironment, bench_environment
from enqueue import document, percentile
from measure import descendants, role_of
from report import Report, parser

if TYPE_CHECKING:
    from collections.abc import Iterator

SENDERS = 4
EVERY_S = 0.01
COLUMNS = (
    "body",
    "MB",
    "answered",
    "answer, kB",
    "requests/s",
    "/healthz p50 ms",
    "p99 ms",
    "most ms",
    "API, MB resident",
)


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0, help="of each body (default: %(default)s)")
    given = options.parse_args()
    report, rows, most_ms = Report(), [], 0.0
    with bench_environment("--discard", settings={"SLICEWAY_MAX_LIVE_JOBS": "100000000"}) as site:
        for name, body in bodies():
            statuses, size, per_s, took_s = under(site, body, given.seconds)
            most_ms = max(most_ms, percentile(took_s, 1))
            percentiles = [f"{percentile(took_s, part):.1f}" for part in (0.5, 0.99, 1)]
            rows.append(
                (
                    name,
                    f"{len(body) / 1e6:.1f}",
                    statuses,
                    f"{size / 1e3:.0f}",
                    f"{per_s:.1f}",
                    *percentiles,
                    resident(),
                )
            )
        report.seen_on(site.running)
    report.table(f"Large bodies over {SENDERS} connections, {given.seconds:g} s each", COLUMNS, rows)
    report.figures = {"most ms of /healthz": most_ms}
    report.publish(given.json)


def bodies() -> Iterator[tuple[str, bytes]]:
    """Every kind of body that is dear to read, of the largest size that it can have."""
    job = document("k") | {"attributes": "x" * 1024}
    full = [job | {"key": f"{n}", "labels": {f"l{m}": "v" * 200 for m in range(27)}} for n in range(1000)]
    yield "1,000 jobs of 8 kB", json.dumps({"jobs": full}).encode()
    yield "1,000 jobs, each wrong", json.dumps({"jobs": [each | {"colour": 1} for each in full]}).encode()
    yield "1,000 jobs of 40 unknown fields", json.dumps({"jobs": [job | _unknown(40)] * 1000}).encode()
    yield "one of 50,000 unknown fields", json.dumps({"jobs": [job | _unknown(50_000)]}).encode()
    yield "one of 550,000 unknown fields", json.dumps({"jobs": [job | _unknown(550_000)]}).encode()
    yield "2.7 million empty objects", b'{"jobs":[' + b"{}," * 2_700_000 + b"{}]}"
    yield "4 million numbers", b'{"jobs":[' + b"0," * 4_000_000 + b"0]}"


def _unknown(count: int) -> dict[str, Any]:
    return {f"f{n}": 0 for n in range(count)}


def under(site: BenchEnvironment, body: bytes, seconds: float) -> tuple[str, int, float, list[float]]:
    """Return statuses and size of the answers, requests a second, and the seconds of each request for /healthz."""
    answers: list[tuple[int, int]] = []
    took_s: list[float] = []
    over = threading.Event()
    headers = {"Authorization": f"Bearer {site.running.api_key}", "Content-Type": "application/json"}

    def send() -> None:
        line = connection(site)
        while not over.is_set():
            line.request("POST", "/v1/jobs/batch", body, headers)
            answer = line.getresponse()
            answers.append((answer.status, len(answer.read())))

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    began, line = time.perf_counter(), connection(site)
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        line.request("GET", "/healthz")
        line.getresponse().read()
        took_s.append(time.perf_counter() - asked)
        over.wait(EVERY_S)
    over.set()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - began
    statuses = ", ".join(sorted({str(status) for status, _ in answers}))
    return statuses, max(size for _, size in answers), len(answers) / wall_s, took_s


def connection(site: BenchEnvironment) -> http.client.HTTPConnection:
    settings = site.running.settings
    return http.client.HTTPConnection(settings.api_host, settings.api_port, timeout=120)


def resident() -> str:
    """The most that the API has had resident, MB."""
    [api] = [pid for pid in descendants(os.getpid()) if role_of(pid) == "api"]
    with open(f"/proc/{api}/status") as status:  # noqa: PTH123
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return f"{int(peak) / 1e3:.0f}"


if __name__ == "__main__":
    main()
