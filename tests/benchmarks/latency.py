"""A store that takes its time over every request: how near the upload comes to what waiting alone allows.

    python tests/benchmarks/latency.py [--seconds 10] [--rounds 5]

The emulator answers each request 20 ms or 100 ms late. A request alone is what one takes, all in all, of a client that
sends one after the other, without a queue; with so many slots, waiting alone allows slots / that time. Slices only, by
the store's own journal: from the beginning of the first request to the end of the last. First with a fixed number of
slots, then as shipped, where the number is found while it works: the journal says how many requests were under way.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench_environment import HERE, KEY, BenchEnvironment, bench_environment
from measure import MIB, Sampler, idle_s
from report import Report, parser

from worker.runtime.concurrency import MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES, THREADS = (1, 2, 4), 4
FIXED = {"SLICEWAY_WORKER_THREADS": str(THREADS), "SLICEWAY_WINDOW": "64"}
LATENCIES_S = (0.02, 0.1)
MOST_PER_S = 300  # more of them keep the cores of a small machine busy; a run need not be longer then
FULL = 0.9
SHIPPED = ("latency", "slices/s", "requests under way", "each took", "cores busy", "CPU ms a slice")


@dataclass(frozen=True, slots=True)
class Spell:
    """The slices of one upload."""

    per_s: float
    #: Share of all cores.
    busy: float
    cpu_ms: float
    #: Requests that the store had at a time, in the mean; and what each of them took, seconds.
    under_way: float
    request_s: float


def main() -> None:
    """Measure and print the tables."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=10.0, help="of each run, about (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    rows: list[tuple[str, ...]] = []
    singly: dict[float, Spell] = {}
    for processes in PROCESSES:
        with bench_environment("--discard", settings=FIXED | {"SLICEWAY_WORKER_PROCESSES": str(processes)}) as site:
            site.sparse(KEY, 200 * MIB)
            site.upload([KEY], slice_mib=1)
            for latency_s, alone_s, spell in fixed(site, processes * THREADS, given.rounds, given.seconds):
                linear = spell.per_s / singly.setdefault(latency_s, spell).per_s / processes
                ratio = spell.per_s * alone_s / processes / THREADS
                note(report, latency_s, spell, {"ratio": ratio} | ({"linear": linear} if processes > 1 else {}))
                rows.append((f"{processes} x {THREADS}", *cells(latency_s, alone_s, spell, ratio, linear)))
    title = f"Slices of 1 MiB, a fixed number of slots, medians of {given.rounds} runs of {given.seconds:g} s or less"
    columns = (
        "processes x threads", "latency", "a request alone", "slices/s", "waiting alone allows", "ratio", "linear",
        "cores busy", "CPU ms a slice",
    )  # fmt: skip
    report.table(title, columns, rows)
    with bench_environment("--discard") as site:
        found = [shipped(report, site, latency_s, given.rounds, given.seconds) for latency_s in LATENCIES_S]
        report.seen_on(site.running)
    report.table(f"As shipped: the number of slots is found by itself, medians of {given.rounds}", SHIPPED, found)
    report.publish(given.json)


def fixed(site: BenchEnvironment, slots: int, rounds: int, seconds: float) -> Iterator[tuple[float, float, Spell]]:
    """Latency, seconds of a request alone, and the median run."""
    for latency_s in LATENCIES_S:
        rule = site.control.add_rule("delay", delay_s=latency_s)
        alone_s = alone(site, max(20, int(seconds / 4 / latency_s)))
        slices = int(min(slots / alone_s, MOST_PER_S) * seconds)
        yield latency_s, alone_s, middle([spell_of(site, slices) for _ in range(rounds)])
        site.control.remove_rule(rule)


def shipped(report: Report, site: BenchEnvironment, latency_s: float, rounds: int, seconds: float) -> tuple[str, ...]:
    """The cells of one latency, after a run in which the number of slots may be found."""
    rule = site.control.add_rule("delay", delay_s=latency_s)
    found = spell_of(site, int(MOST_PER_S * seconds))
    spell = middle([spell_of(site, int(found.per_s * seconds)) for _ in range(rounds)])
    site.control.remove_rule(rule)
    slots = MAX_SLOTS * site.running.settings.worker_processes
    report.figures[f"{latency_s * 1e3:.0f} ms: full as shipped"] = max(spell.busy, spell.under_way / slots)
    return (
        f"{latency_s * 1e3:.0f} ms", f"{spell.per_s:.0f}", f"{spell.under_way:.1f}", f"{spell.request_s * 1e3:.1f} ms",
        f"{spell.busy:.0%}", f"{spell.cpu_ms:.2f}",
    )  # fmt: skip


def alone(site: BenchEnvironment, slices: int) -> float:
    """Seconds that a request takes without a queue, and without another one beside it; the finish is one of them."""
    file = site.sparse(KEY, slices * MIB)
    arguments = {"by": "driver", "file": str(file), "slice_bytes": MIB, "processes": 1, "threads": 1}
    return site.other([sys.executable, HERE / "raw_driver.py"], arguments).wall_s / (slices + 1)


def spell_of(site: BenchEnvironment, slices: int) -> Spell:
    """Upload as many slices."""
    site.sparse(KEY, slices * MIB)
    site.control.clear_requests()
    sampler = Sampler(0.05, lambda: (time.monotonic(), idle_s()))
    sampler.start()
    run = site.upload([KEY], slice_mib=1)
    seen = sampler.finish()
    sent = site.control.requests(op="data", code=0)
    assert len(sent) == slices, f"{len(sent)} requests for {slices} slices"
    began, ended = min(each["began_s"] for each in sent), max(each["ended_s"] for each in sent)
    (first, idle), *_, (last, idle_after) = (each for each in seen if began <= each[0] <= ended)
    span_s = ended - began
    in_store_s = [each["ended_s"] - each["began_s"] for each in sent]
    return Spell(
        per_s=slices / span_s,
        busy=1 - (idle_after - idle) / (last - first) / (os.cpu_count() or 1),
        cpu_ms=run.client_s / slices * 1e3,
        under_way=sum(in_store_s) / span_s,
        request_s=statistics.median(in_store_s),
    )


def middle(spells: list[Spell]) -> Spell:
    """The median of each figure."""
    return Spell(*(statistics.median(getattr(each, name) for each in spells) for name in Spell.__slots__))


def note(report: Report, latency_s: float, spell: Spell, found: dict[str, float]) -> None:
    """Keep for the bars the worst of those that leave something of the cores."""
    for name, value in found.items() if spell.busy < FULL else ():
        figure = f"{latency_s * 1e3:.0f} ms: {name}"
        report.figures[figure] = min(value, report.figures.get(figure, value))


def cells(latency_s: float, alone_s: float, spell: Spell, ratio: float, linear: float) -> tuple[str, ...]:
    """What is read of a fixed number of slots."""
    return (
        f"{latency_s * 1e3:.0f} ms", f"{alone_s * 1e3:.1f} ms", f"{spell.per_s:.0f}", f"{spell.per_s / ratio:.0f}",
        f"{ratio:.2f}", f"{linear:.2f}", f"{spell.busy:.0%}", f"{spell.cpu_ms:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
