"""How soon things are there: `sliceway up`, the worker's imports; and what an idle API takes of the memory.

python tests/benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import MIB, descendants, role_of, scratch
from report import Report, parser

from tests.support.environ import clean_environ
from worker.local.state import State
from worker.local.system import ANY_PORTS, running_system


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    ready, rss = [], []
    with scratch() as folder:
        state = State.at(folder)
        environ = clean_environ()
        for _ in range(1 + given.rounds):
            began = time.monotonic()
            with running_system(state, ports=ANY_PORTS, say=lambda _: None, environ=environ) as running:
                ready.append(time.monotonic() - began)
                rss.append(max(rss_bytes(pid) for pid in descendants(os.getpid()) if role_of(pid) == "api"))
                report.seen_on(running)
    imports = [imported() for _ in range(1 + given.rounds)]
    rows = [
        ("`sliceway up`: everything ready, again on the same folder, s", *spread(ready[1:])),
        ("`import worker.celery`, s", *spread(imports[1:])),
        ("the API when idle, RSS in MiB", *spread([each / MIB for each in rss[1:]])),
    ]
    report.table(f"Start, {given.rounds} times", ("what", "median", "least", "most"), rows)
    report.figures = {
        "up, s": statistics.median(ready[1:]), "import, s": statistics.median(imports[1:]),
        "idle API, MiB": statistics.median(rss[1:]) / MIB,
    }  # fmt: skip
    report.publish(given.json)


def imported() -> float:
    """Seconds of a new interpreter for the worker's imports, its own start not counted."""
    code = "import time; began = time.perf_counter(); import worker.celery; print(time.perf_counter() - began)"
    nowhere = {
        "SLICEWAY_DATABASE_URL": "postgresql+psycopg://nobody@localhost/none", "SLICEWAY_BROKER_URL": "redis://localhost"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def rss_bytes(pid: int) -> int:
    """The resident set of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spread(figures: list[float]) -> tuple[str, str, str]:
    return f"{statistics.median(figures):.2f}", f"{min(figures):.2f}", f"{max(figures):.2f}"


if __name__ == "__main__":
    main()
