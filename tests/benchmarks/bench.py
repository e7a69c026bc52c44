"""Every case, one after the other; the tables replace those in `docs/benchmarks.md`.

    python tests/benchmarks/bench.py [--long] [CASE ...]

A case is a script here, by its name. The whole takes about a quarter of an hour, with ``--long`` an hour; the machine
should have nothing else to do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rig import out

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- what `make bench` measured -->", "<!-- until here -->"
CASES = {
    "large_files": ((), ("--mib", "4096")),
    "many_files": ((), ()),
    "small_files": ((), ("--jobs", "5000")),
    "enqueue": ((), ()),
    "latency": (("--rounds", "3"), ("--rounds", "5")),
    "flat_cost": (("--gib", "1", "10"), ("--gib", "1", "100")),
    "full_tables": ((), ()),
    "start": ((), ()),
}


def main() -> None:
    """Run the cases that are named, all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="4 GiB, 5,000 small files, 100 GiB")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)} (default: all)")
    given = parser.parse_args()
    if unknown := sorted(set(given.cases) - set(CASES)):
        parser.error(f"there is no case {unknown[0]!r}")
    for name in given.cases or CASES:
        began = time.monotonic()
        words = [str(HERE / f"{name}.py"), *CASES[name][given.long]]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        out.print(done.stdout + done.stderr[-2000:])
        out.print(f"{name}: {time.monotonic() - began:.0f} s\n")
        if done.returncode != 0:
            sys.exit(f"{name} failed")
        keep(name, done.stdout)


def keep(name: str, printed: str) -> None:
    """Put the table of a case in the place of its last one."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    kept, _, after = rest.partition(END)
    cases = {part.splitlines()[0]: part for part in kept.split("### ")[1:]}
    lines = [line.rstrip() for line in printed.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    title = next(line for line in reversed(lines[:start]) if line)
    table = "\n".join(line for line in lines[start:] if line.startswith("|"))
    notes = "\n".join(f"{line.strip()}  " for line in lines[start:] if line.startswith("  "))
    heading = f"{name}: {title}"
    cases = {each: text for each, text in cases.items() if not each.startswith(f"{name}: ")}
    cases[heading] = f"{heading}\n\n{table}\n\n{datetime.now(UTC):%Y-%m-%d}, on  \n{notes}\n\n"
    order = sorted(cases, key=lambda each: list(CASES).index(each.partition(":")[0]))
    whole = "".join(f"### {cases[each].rstrip()}\n\n" for each in order)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{whole}{END}{after}")


if __name__ == "__main__":
    main()
