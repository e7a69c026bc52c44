"""This tree beside another one, in turns: what the same uploads and requests cost before a change and after it.

    git clone --branch v0.1.0 . /tmp/before     # or any other commit
    python tests/benchmarks/side_by_side.py /tmp/before [--rounds 15] [--cases 1g3,get]

Both systems stand at the same time, with this environment's packages. Every round measures each case in both, and which
of them begins changes from round to round. The ratio of a case is the median of its rounds' ratios: what slows the
machine down for a while slows both down.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

TREE = Path(os.environ.get("SIDE_TREE") or Path(__file__).parents[2])
sys.path[0] = str(TREE / "tests" / "benchmarks")  # not this folder: another tree is measured with its own modules

if (TREE / "tests" / "benchmarks" / "bed.py").exists():  # the modules' names until 0.2
    from bed import Bed as BenchEnvironment
    from bed import bed as bench_environment
    from rig import KIB, MIB, api_of, cpu_by_role, machine
else:
    from bench_environment import BenchEnvironment, bench_environment
    from measure import KIB, MIB, api_of, cpu_by_role, machine
from report import Report, parser  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MEDIUM, SMALL, REQUESTS = 20, 300, 500
#: What a side prints before a figure; anything else is none of ours.
SAYS = "MEASURED "
MACHINE = "machine"
CASES = {
    "1g3": "a file of 1 GiB, slices of 3 MiB",
    "1g1": "a file of 1 GiB, slices of 1 MiB",
    "medium": f"{MEDIUM} files of 25 MiB, slices of 3 MiB",
    "small": f"{SMALL} files of 64 KiB",
    "get": f"{REQUESTS} times `GET /v1/jobs/ID` of a job that is over",
    "enqueue": f"{REQUESTS} times `POST /v1/jobs`, and the upload of a file of 1 KiB",
}

Cost = dict[str, float]


def main() -> None:
    """Measure and print the table; or be one side, if the environment says so."""
    if "SIDE_TREE" in os.environ:
        serve()
        return
    options = parser(__doc__)
    options.add_argument("before", type=Path, help="another tree of this project")
    options.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    options.add_argument("--cases", default=",".join(CASES), help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with side(given.before.resolve()) as before, side(TREE) as after:
        rows = [row(case, compare(before, after, case, given.rounds)) for case in given.cases.split(",")]
    columns = ("what", "wall s before", "after", "ratio", "CPU s before", "after", "ratio")
    report.table(f"Side by side, medians of {given.rounds} rounds", columns, rows)
    report.publish(given.json)


def compare(before: Side, after: Side, case: str, rounds: int) -> list[tuple[Cost, Cost]]:
    """Measure one case on both sides, in turns; the first round of each warms it up and is not counted."""
    found = []
    for number in range(rounds + 1):
        if number % 2:
            first = before.measure(case)
            found.append((first, after.measure(case)))
        else:
            second = after.measure(case)
            found.append((before.measure(case), second))
    return found[1:]


def row(case: str, rounds: Sequence[tuple[Cost, Cost]]) -> tuple[str, ...]:
    """Return the cells of one case."""
    cells = [CASES[case]]
    for what in ("wall_s", "cpu_s"):
        ratio = statistics.median(after[what] / before[what] for before, after in rounds)
        medians = [statistics.median(each[which][what] for each in rounds) for which in (0, 1)]
        cells += [*(f"{median:.2f}" for median in medians), f"{ratio:.3f}"]
    return tuple(cells)


class Side:
    """The system of one tree, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Speak with the process over its standard streams."""
        self._process = process

    def measure(self, case: str) -> Cost:
        """Return what a case costs there."""
        return dict(self._ask(case))

    def machine(self) -> list[str]:
        """Return what it measures on."""
        return list(self._ask(MACHINE))

    def _ask(self, what: str) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{what}\n")
        stdin.flush()
        for line in stdout:
            if line.startswith(SAYS):
                return json.loads(line.removeprefix(SAYS))
        sys.exit(f"it has ended over {what}")


@contextlib.contextmanager
def side(tree: Path, **settings: str) -> Iterator[Side]:
    """Have the system of a tree up, with these settings."""
    environ = {**os.environ, "PYTHONPATH": str(tree), "SIDE_TREE": str(tree), "SIDE_SETTINGS": json.dumps(settings)}
    argv = [sys.executable, __file__]
    with subprocess.Popen(
        argv, cwd=tree, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Side(process)
        process.communicate()


def serve() -> None:
    """Measure what standard input asks for, until it ends."""
    settings = {"SLICEWAY_MAX_LIVE_JOBS": "1000000", **json.loads(os.environ["SIDE_SETTINGS"])}
    with bench_environment("--discard", settings=settings) as site:
        site.file("large", 1024 * MIB)
        medium = [f"medium{number}" for number in range(MEDIUM)]
        small = [f"small{number}" for number in range(SMALL)]
        for names, size_bytes in ((medium, 25 * MIB), (small, 64 * KIB), (["tiny"], KIB)):
            for name in names:
                site.file(name, size_bytes)
        cases: dict[str, Callable[[], Any]] = {
            MACHINE: lambda: machine(site.running),
            "1g3": partial(uploads, site, ["large"], 3),
            "1g1": partial(uploads, site, ["large"], 1),
            "medium": partial(uploads, site, medium, 3),
            "small": partial(uploads, site, small, 3),
            "get": partial(gets, site),
            "enqueue": partial(enqueues, site),
        }
        for line in sys.stdin:
            sys.stdout.write(f"{SAYS}{json.dumps(cases[line.strip()]())}\n")
            sys.stdout.flush()


def uploads(site: BenchEnvironment, names: Sequence[str], slice_mib: int) -> Cost:
    """Upload files; the CPU is that of everything but the store."""
    run = site.upload(names, slice_mib=slice_mib)
    return {"wall_s": run.wall_s, "cpu_s": run.client_s}


def gets(site: BenchEnvironment) -> Cost:
    """Read a job that is over, many times."""
    site.upload(["tiny"], slice_mib=3)
    with api_of(site.running) as api:
        [job] = api.get("/v1/jobs", params={"limit": 1}).raise_for_status().json()["items"]
        return requests(lambda: api.get(f"/v1/jobs/{job['id']}").raise_for_status())


def enqueues(site: BenchEnvironment) -> Cost:
    """Enqueue jobs one by one; their uploads take their share of the time."""
    stem = next(site.stems)
    with api_of(site.running) as api:
        source = {"kind": "file", "root": "files", "path": "tiny"}
        jobs = ({"source": source, "store": "store3", "key": f"{stem}/{number}"} for number in range(REQUESTS))
        cost = requests(lambda: api.post("/v1/jobs", json=next(jobs)).raise_for_status())
    site.settled()
    site.forget()
    return cost


def requests(once: Callable[[], Any]) -> Cost:
    """Send as many requests as one measurement takes."""
    before, began_s = cpu_by_role(), time.monotonic()
    for _ in range(REQUESTS):
        once()
    wall_s, after = time.monotonic() - began_s, cpu_by_role()
    return {"wall_s": wall_s, "cpu_s": sum(after.get(role, 0) - before.get(role, 0) for role in ("api", "postgres"))}


if __name__ == "__main__":
    main()
