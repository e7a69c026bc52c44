"""Files of 25 MiB, many of them, beside one large file: what a file costs beyond its bytes.

    python tests/benchmarks/many_files.py [--files 200] [--rounds 5]

Slices of 3 MiB. In every round a share of the files, and one file with as many bytes.
"""

from __future__ import annotations

import statistics

from bench_environment import KEY, bench_environment
from measure import MIB
from report import Report, parser

FILE_MIB = 25


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=200, help="in all rounds together (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    share = given.files // given.rounds
    size_bytes = share * FILE_MIB * MIB
    with bench_environment() as site:
        names = [f"many/{number}" for number in range(share)]
        for name in names:
            site.file(name, FILE_MIB * MIB)
        site.file(KEY, size_bytes)
        one, many = [], []
        for _ in range(1 + given.rounds):
            one.append(site.upload([KEY], slice_mib=3))
            many.append(site.upload(names, slice_mib=3))
        report.seen_on(site.running)
    rows = []
    for name, runs in ((f"one file of {share * FILE_MIB} MiB", one[1:]), (f"{share} of {FILE_MIB} MiB", many[1:])):
        speed = statistics.median(size_bytes / run.wall_s / 1e6 for run in runs)
        cpu = statistics.median(run.client_s for run in runs) / size_bytes * 1e9
        rows.append((name, f"{speed:.0f}", f"{cpu:.2f}"))
    ratio = statistics.median(a.wall_s / b.wall_s for a, b in zip(one[1:], many[1:], strict=True))
    rows.append(("ratio of the two, round by round: median", f"{ratio:.2f}", ""))
    columns = ("files", "MB/s", "CPU s/GB, all but the store")
    title = f"{share * given.rounds} files of {FILE_MIB} MiB, slices of 3 MiB, medians of {given.rounds} rounds"
    report.table(title, columns, rows)
    report.figures["of one file"] = ratio
    report.publish(given.json)


if __name__ == "__main__":
    main()
