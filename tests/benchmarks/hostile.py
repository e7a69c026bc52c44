"""Load without a key, of each kind, and what it does to `/healthz` (on a new connection each time), memory and log.

    python tests/benchmarks/hostile.py [--seconds 30] [--kinds "idle connections" ...]

The load comes from processes of its own, as fast as they can. The API is `python -m api` with `ulimit -n 1024`, alone
with its database: memory is its PSS, log its standard error.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostile_load import KINDS, Ends, health_s, load
from measure import MIB, Sampler, cpu_s, out, pss_bytes, system
from report import Report, parser

from tests.support.environ import clean_environ
from worker.local.ports import free_port
from worker.local.postgres import EmbeddedPostgres
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.local.state import State

ATTACKERS = 2
OPEN_FILES = 1024
PROBE_EVERY_S = 0.05
_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one kind of load did."""

    took_s: list[float]
    failed: int
    more_bytes: int
    log_bytes: int
    cpu_s: float
    loads: int

    def row(self, kind: str, seconds: float) -> tuple[str, ...]:
        """The kind's line of the table."""
        worst = f"{1000 * self.took_s[-1]:.0f}" if self.took_s else "none answered"
        return (
            kind, f"{self.loads / seconds:,.0f}", f"{1000 * self.p99_s:.0f}", worst, f"{self.failed}",
            f"{self.more_bytes / MIB:.1f}", f"{self.log_bytes / 1000:.1f}", f"{100 * self.cpu_s / seconds:.0f}",
        )  # fmt: skip

    @property
    def p99_s(self) -> float:
        """A probe that failed counts as one that took for ever."""
        every = self.took_s + [float("inf")] * self.failed
        return every[min(len(every) - 1, int(0.99 * len(every)))]


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=30.0, help="of each kind (default: %(default)s)")
    options.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    given = options.parse_args()
    report, outcomes = Report(), {}
    with system() as (state, running):
        for kind in given.kinds:
            with api(state) as (port, pid, log):
                outcomes[kind] = under(kind, port, pid, log, given.seconds)
            out.print(" ".join(outcomes[kind].row(kind, given.seconds)))
        report.seen_on(running)
    columns = (
        f"kind, {ATTACKERS} processes", "load/s", "/healthz p99 ms", "worst ms", "failed", "memory MiB more", "log kB",
        "CPU of the API, %",
    )  # fmt: skip
    rows = [outcome.row(kind, given.seconds) for kind, outcome in outcomes.items()]
    report.table(f"Load without a key, {given.seconds:g} s of each kind", columns, rows)
    report.figures = {
        "p99 ms": 1000 * max(each.p99_s for each in outcomes.values()),
        "memory MiB": max(each.more_bytes for each in outcomes.values()) / MIB,
        "log kB": max(each.log_bytes for each in outcomes.values()) / 1000,
    }
    report.publish(given.json)


@contextmanager
def api(state: State) -> Iterator[tuple[int, int, Path]]:
    """An API of its own on the system's database; its port, its process, its log."""
    port, log = free_port(), state.folder / "hostile.log"
    ports = json.loads((state.folder / "ports.json").read_text())
    environ = clean_environ() | {
        "SLICEWAY_DATABASE_URL": EmbeddedPostgres(state.folder / "postgres", port=ports["postgres"]).url,
        "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0",  # an API needs none
        "SLICEWAY_API_PORT": str(port),
    }
    command = ["sh", "-c", f"ulimit -n {OPEN_FILES}; exec {sys.executable} -m api"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environ, stderr=stream)
    try:
        assert wait_until(lambda: answers(port), timeout_s=_DEADLINE_S), log.read_text()[-2000:]
        for _ in range(500):  # what it keeps for ever, it has then
            answers(port)
        yield port, process.pid, log
    finally:
        process.terminate()
        try:
            process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(port: int) -> bool:
    try:
        return health_s(port) > 0
    except OSError:
        return False


def under(kind: str, port: int, pid: int, log: Path, seconds: float) -> Outcome:
    """Load the API, and probe it meanwhile."""
    before, log_before, cpu_before = pss_bytes(pid) or 0, log.stat().st_size, cpu_s(pid)
    spawn = multiprocessing.get_context("spawn")
    counts = [spawn.Value("q", 0) for _ in range(ATTACKERS)]
    ends = Ends(spawn.Value("d", math.inf))
    attackers = [spawn.Process(target=load, args=(kind, port, ends, count), daemon=True) for count in counts]
    for attacker in attackers:
        attacker.start()
    assert wait_until(lambda: all(count.value for count in counts), timeout_s=_DEADLINE_S), "no load"
    ends.at.value = time.monotonic() + seconds
    memory = Sampler(0.1, lambda: pss_bytes(pid) or 0)
    memory.start()
    took, failed = probe(port, seconds)
    peak = max(memory.finish(), default=0)
    for attacker in attackers:
        attacker.join(5)
        attacker.kill()
    loads = sum(count.value for count in counts)
    return Outcome(sorted(took), failed, peak - before, log.stat().st_size - log_before, cpu_s(pid) - cpu_before, loads)


def probe(port: int, seconds: float) -> tuple[list[float], int]:
    """Ask for `/healthz` on a new connection each time; the seconds of each, and how many had no answer in 5 s."""
    took, failed, ended = [], 0, time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < ended:
        try:
            took.append(health_s(port))
        except OSError:
            failed += 1
        pause.wait(PROBE_EVERY_S)
    return took, failed


if __name__ == "__main__":
    with closing(sys.stdout):
        main()
