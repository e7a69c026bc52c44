"""Every case, one after the other; bars and tables replace those in `docs/benchmarks.md`.

    python tests/benchmarks/bench.py [--long] [CASE ...]

A case is a script here, by its name, and its options. The whole takes some 25 minutes, with ``--long`` hours; the
machine should have nothing else to do. What is not run again stays in the document as it was; a bar shows its case's
last run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import timeit
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bars import BARS
from measure import out

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- what `make bench` measured -->", "<!-- until here -->"
BARS_TITLE = "Bars"
#: Options of the short run, and of the long one; None: not in it.
CASES: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {
    "large_files": ((), ("--mib", "4096", "--few")),
    "large_files --kept": (None, ()),
    "many_files": ((), ()),
    "small_files": ((), ("--jobs", "5000")),
    "celery_parts": (("--rounds", "3"), ()),
    "enqueue": ((), ()),
    "large_bodies": (("--seconds", "3"), ()),
    "latency": (("--seconds", "4"), ()),
    "slow_link": ((), ("--long",)),
    "slow_store": ((), ()),
    "hostile": (("--seconds", "10"), ()),
    "flat_cost": (("--gib", "1", "10"), ("--gib", "1", "100")),
    "full_tables": ((), ()),
    "finding": ((), ()),
    "start": ((), ()),
    "steady": (None, ()),
}


def main() -> None:
    """Run the cases that are named, all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="4 GiB, 5,000 small files, 100 GiB, an hour of load")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)} (default: all)")
    given = parser.parse_args()
    if unknown := sorted(set(given.cases) - set(CASES)):
        parser.error(f"there is no case {unknown[0]!r}")
    for name in given.cases or CASES:
        options = CASES[name][given.long or CASES[name][0] is None]
        if options is None or (CASES[name][0] is None and not given.long and not given.cases):
            continue
        began, speeds = time.monotonic(), [speed_s()]
        report = run(name, options)
        speeds.append(speed_s())
        out.print(f"{name}: {time.monotonic() - began:.0f} s\n")
        keep(name, options, report, speeds)


def run(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Run one case and return what it reports."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        script, *fixed = name.split()
        command = [sys.executable, str(HERE / f"{script}.py"), *fixed, *options, "--json", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        out.print(done.stdout + done.stderr[-2000:])
        if done.returncode != 0:
            sys.exit(f"{name} failed")
        return dict(json.load(file))


def speed_s() -> float:
    """The seconds that ten million additions take: what a shared machine gives differs from hour to hour."""
    return min(timeit.repeat("for n in numbers: total += n", "total, numbers = 0, range(10**7)", number=1, repeat=3))


def keep(name: str, options: Sequence[str], report: dict[str, Any], speeds: Sequence[float]) -> None:
    """Put the bars and tables of a case in the place of its last ones."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    kept, _, after = rest.partition(END)
    parts = {part.splitlines()[0]: part.rstrip() for part in kept.split("### ")[1:]}
    tables = "\n\n".join(f"{each['title']}:\n\n{table(each['columns'], each['rows'])}" for each in report["tables"])
    heading = " ".join([name, *options])
    speed = f"Ten million additions took {speeds[0]:.2f} s before it and {speeds[-1]:.2f} s after it."
    parts[heading] = f"{heading}\n\n{speed}\n\n{tables}"
    *machine, _ = report["machine"]
    parts[BARS_TITLE] = f"{BARS_TITLE}\n\n{bars(name, report['figures'], parts.get(BARS_TITLE, ''))}"
    head = f"The last case was measured on {datetime.now(UTC):%Y-%m-%d}: {'; '.join(machine)}."
    order = [BARS_TITLE, *(each for each in CASES if " " not in each)]
    headings = sorted(parts, key=lambda each: (order.index(each.partition(" ")[0]), each))
    whole = "\n\n".join(f"### {parts[each]}" for each in headings)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{head}\n\n{whole}\n\n{END}{after}")


def bars(name: str, figures: dict[str, float], last: str) -> str:
    """All bars: those of this case anew, if it has figures for them, the others as they are."""
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in last.splitlines() if line.startswith("| ")}
    rows = [
        lines.get(bar.name) or line(bar.row(None)) if bar.case != name or not figures else line(bar.row(figures))
        for bar in BARS
    ]
    return "\n".join([line(("bar", "measured", "reached")), "| --- | --- | --- |", *rows])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown has it."""
    rule = "| --- |" + " ---: |" * (len(columns) - 1)
    return "\n".join([line(columns), rule, *map(line, rows)])


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
