"""How fast it is to be, each bar beside what was measured. Ratios are those of one run, round by round."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Side(StrEnum):
    """On which side of the bar the figure is to be."""

    LEAST = "≥"
    MOST = "≤"


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of a case, and what it is to be."""

    case: str
    figure: str
    side: Side
    value: float
    text: str
    #: A figure that is printed beside it; the bar is asked for only if that one is at least ``given``.
    beside: str = ""
    given: float = 0.0
    #: What is said if the case was run and had no such figure.
    absent: str = "not compared"

    @property
    def name(self) -> str:
        """The bar as it is read."""
        return f"{self.text} {self.side} {self.value:,g}"

    def row(self, figures: Mapping[str, float] | None) -> tuple[str, str, str]:
        """Bar, measured, reached; without figures if the case was not run."""
        if figures is None:
            return self.name, "not measured", ""
        found, other = figures.get(self.figure), figures.get(self.beside)
        if found is None:
            return self.name, self.absent, ""
        measured = f"{found:,.0f}" if found >= 100 else f"{found:.2f}"
        if other is not None:
            measured += f" ({self.beside} {other:,.0f})"
        if other is not None and other < self.given:
            return self.name, measured, "not asked"
        reached = found >= self.value if self.side is Side.LEAST else found <= self.value
        return self.name, measured, "yes" if reached else "**no**"


def _large(mib: int, sdk: float, limit: float, cpu: float) -> tuple[Bar, ...]:
    case, size, least, most = "large_files", f"{mib} MiB", Side.LEAST, Side.MOST
    return (
        Bar(case, f"{size}: x SDK best", least, sdk, f"large file, {size} slices: x the SDK at its best threads"),
        *((Bar(case, f"{size}: x SDK as it comes", least, 2, f"{size}: x the SDK as it comes"),) if mib > 1 else ()),
        Bar(case, f"{size}: x raw limit", least, limit, f"{size}: x the raw limit"),
        Bar(case, f"{size}: x plain Celery", least, 2, f"{size}: x plain Celery"),
        Bar(case, f"{size}: CPU s/GB", most, cpu, f"{size}: CPU of all processes but the store, s/GB"),
        Bar(case, f"{size}: CPU ms a slice beside the driver", most, 2.4, f"{size}: CPU beside the driver, ms a slice"),
    )


def _late(name: str) -> tuple[Bar, ...]:
    case, least, full = "latency", Side.LEAST, "cores full"
    allowed, linear = "x what waiting alone allows", "one to four processes: x linear"
    return (
        Bar(case, f"{name}: ratio", least, 0.95, f"{name} a request, cores not full: {allowed}", absent=full),
        Bar(case, f"{name}: linear", least, 0.9, f"{name}, cores not full, {linear}", absent=full),
        Bar(
            case,
            f"{name}: full as shipped",
            least,
            0.9,
            f"{name}, as shipped: share in use, of the cores or of the slots",
        ),
    )


BARS = (
    *_large(3, sdk=1.3, limit=0.7, cpu=2.0),
    *_large(1, sdk=1.2, limit=0.5, cpu=3.5),
    Bar("small_files", "x a chord a file", Side.LEAST, 2.5, "64 KiB jobs: x plain Celery on the same job"),
    Bar("small_files", "jobs/s", Side.LEAST, 250, "64 KiB jobs/s, where Celery does 1,100 no-ops/s", "no-op/s", 1100),
    Bar("many_files", "of one file", Side.LEAST, 0.85, "files of 25 MiB at 3 MiB: x the speed of one large file"),
    Bar("enqueue", "one by one/s", Side.LEAST, 1000, "enqueue, one by one, jobs/s"),
    Bar("enqueue", "p99 ms while uploads run", Side.MOST, 25, "enqueue at 300/s while uploads run, p99 ms"),
    Bar("enqueue", "by batch/s", Side.LEAST, 20_000, "enqueue by batch, jobs/s"),
    Bar("large_bodies", "most ms of /healthz", Side.MOST, 250, "/healthz beside the largest bodies, most ms"),
    Bar("enqueue", "p50 ms to the first byte", Side.MOST, 60, "idle, enqueue to first byte, p50 ms"),
    Bar("enqueue", "p99 ms to the first byte", Side.MOST, 250, "idle, enqueue to first byte, p99 ms"),
    *_late("20 ms"),
    *_late("100 ms"),
    Bar("slow_link", "x size / bandwidth", Side.MOST, 1.3, "slow links, the slowest file: x size / bandwidth"),
    Bar("slow_link", "% sent twice", Side.MOST, 5, "slow links: bytes sent twice, %"),
    Bar("slow_link", "slices twice", Side.MOST, 1, "six slices of 3 MiB at 64 KiB/s: sent twice", absent="with --long"),
    Bar("slow_link", "attempts", Side.MOST, 0, "slow links: attempts used up"),
    Bar("celery_parts", "1g1: CPU stock / short", Side.LEAST, 1, "CPU a slice: stock Celery, x the short path"),
    Bar("slow_store", "first, s", Side.MOST, 2, "beside a slow store, the first of 40 small files, s"),
    Bar("hostile", "p99 ms", Side.MOST, 250, "/healthz under each kind of load without a key, p99 ms"),
    Bar("flat_cost", "CPU a slice, x of the first", Side.MOST, 1.1, "CPU a slice, the largest file: x that at 1 GiB"),
    Bar("full_tables", "turn, ms", Side.MOST, 10, "dispatcher turn, 1,000,000 finished and 100,000 waiting, p50 ms"),
    Bar("flat_cost", "worker PSS, MiB", Side.MOST, 150, "worker process, PSS, MiB"),
    Bar("finding", "counts, most p50 ms", Side.MOST, 300, "counts, 1,000,000 ended, 100,000 live, the slowest, p50 ms"),
    Bar("finding", "lists, most p50 ms", Side.MOST, 300, "lists of the same, the slowest, p50 ms"),
    Bar("flat_cost", "broker MiB", Side.MOST, 10, "broker, one large file, MiB"),
    Bar("full_tables", "why, ms", Side.MOST, 300, "why all jobs wait, the same tables, p50 ms"),
    Bar("full_tables", "broker MiB", Side.MOST, 10, "broker, 100,000 waiting, MiB"),
    Bar("steady", "growth", Side.MOST, 1.1, "an hour of load: bytes a row in the last quarter, x those in the second"),
    Bar("start", "up, s", Side.MOST, 5, "`sliceway up` ready, s"),
    Bar("start", "import, s", Side.MOST, 0.8, "`import worker.celery`, s"),
    Bar("start", "idle API, MiB", Side.MOST, 120, "idle API, RSS, MiB"),
)  # fmt: skip
