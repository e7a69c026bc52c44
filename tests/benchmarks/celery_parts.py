"""The short path through Celery and kombu beside the stock parts, in turns: whether it still pays.

    python tests/benchmarks/celery_parts.py [--rounds 5]

Both systems are of this tree, and stand at the same time; one has `SLICEWAY_CELERY=stock`. The CPU is that of
everything but the store: API, workers, database, broker.
"""

from __future__ import annotations

import statistics

from report import Report, parser
from side_by_side import TREE, compare, side

FILE_MIB, SMALL = 1024, 300
#: A case of `side_by_side.py`, what it is, and its units.
CASES = (
    ("1g1", "a slice of 1 MiB, of a file of 1 GiB", FILE_MIB),
    ("small", "a file of 64 KiB, one of 300", SMALL),
)


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with side(TREE, SLICEWAY_CELERY="stock") as stock, side(TREE) as short:
        report.machine, rows = short.machine(), []
        for case, what, units in CASES:
            found = compare(stock, short, case, given.rounds)
            cpu, wall = (
                statistics.median(before[cost] / after[cost] for before, after in found) for cost in ("cpu_s", "wall_s")
            )
            cells = [1e3 * statistics.median(each[which]["cpu_s"] for each in found) / units for which in (0, 1)]
            rows.append((what, *(f"{cell:.2f}" for cell in cells), f"{cpu:.2f}", f"{wall:.2f}"))
            report.figures[f"{case}: CPU stock / short"] = cpu
    columns = ("what", "CPU ms stock", "short", "stock / short", "wall stock / short")
    report.table(
        f"Stock parts of Celery and kombu beside the short path, medians of {given.rounds} rounds", columns, rows
    )
    report.publish(given.json)


if __name__ == "__main__":
    main()
