"""`python -m tests.faults`: the long forms of kill loops, recovery times and races; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.chaos.recovery_run import RecoveryRun
from tests.faults.chaos.run import Plan, Run
from tests.support.source_race import SourceRace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.chaos.verdict import Verdict

_JOBS_PER_MINUTE = 667
_SCALES = {"short": 0.2, "shipped": 1.0}
_MAX_PRINTED = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and print the verdict."""
    arguments = _arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="sliceway-faults-"))
    folder.chmod(0o711)  # the embedded database may run as another user
    began = time.monotonic()
    if arguments.sources:
        return _race(arguments.seed, arguments.sources, folder)
    run = _recovery_run(arguments, folder) if arguments.recovery else _run(arguments, folder)
    try:
        run.play()
        verdict = run.judge()
    finally:
        run.cluster.close()
    _print(verdict, folder, time.monotonic() - began)
    if not verdict.wrong and not arguments.keep:
        shutil.rmtree(folder)
    return 1 if verdict.wrong else 0


def _recovery_run(arguments: argparse.Namespace, folder: Path) -> RecoveryRun:
    _write(f"seed {arguments.seed}, {arguments.rounds} rounds of one fault at a time, shipped timers, in {folder}")
    return RecoveryRun(arguments.seed, arguments.rounds, folder)


def _race(seed: int, seconds: float, folder: Path) -> int:
    mounts = os.geteuid() == 0
    _write(f"seed {seed}, {seconds:g} s of opening files that are renamed, linked" + (", unmounted" if mounts else ""))
    if not mounts:
        _write("NOT TESTED HERE: unmounted roots; only root can mount")
    race = SourceRace(folder, seed, mounts=mounts)
    race.play(seconds=seconds)
    shutil.rmtree(folder)
    _write(f"{race.outcomes.total():,} opened: {dict(race.outcomes.most_common())}")
    for what, times in race.wrong.items():
        _write(f"WRONG: {what}, {times} times")
    return 1 if race.wrong else 0


def _run(arguments: argparse.Namespace, folder: Path) -> Run:
    plan = Plan(
        seed=arguments.seed,
        faults_s=60 * arguments.minutes,
        jobs=arguments.jobs or int(arguments.minutes * _JOBS_PER_MINUTE),
        time_scale=_SCALES[arguments.timers],
        pace=arguments.pace,
        workers=arguments.workers,
        link_bytes_per_s=arguments.link,
    )
    parts = f"{plan.jobs} jobs, {arguments.minutes:g} minutes of faults, {arguments.timers} timers"
    _write(f"seed {plan.seed}, {parts}, in {folder}")
    return Run(plan, folder)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print(verdict: Verdict, folder: Path, took_s: float) -> None:
    figures = [*verdict.figures, ("took", f"{took_s:.0f} s"), ("repeat with", _command())]
    width = max(len(name) for name, _ in figures)
    lines = [f"{name:<{width}}  {value}" for name, value in figures]
    (folder / "figures.txt").write_text("\n".join(lines) + "\n")
    (folder / "wrong.txt").write_text("".join(f"{what}\n" for what in verdict.wrong))
    _write("\n" + "\n".join(lines))
    for what in verdict.wrong[:_MAX_PRINTED]:
        _write(f"WRONG: {what}")
    if verdict.wrong:
        _write(f"{len(verdict.wrong)} things are wrong; the evidence is in {folder}")
    else:
        _write("nothing is wrong")


def _command() -> str:
    return shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the jobs and of the faults (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="how long faults are injected (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help=f"default: {_JOBS_PER_MINUTE} a minute")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=1.0, help="2 doubles the time between faults")
    parser.add_argument("--timers", choices=_SCALES, default="short", help="short: a fifth of those shipped (default)")
    parser.add_argument("--link", type=int, metavar="BYTES", help="bandwidth of the link to the store, a second")
    parser.add_argument(
        "--recovery",
        action="store_true",
        help="one fault at a time, shipped timers; checks the recovery targets",
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="of --recovery: how often each fault (default: %(default)s)"
    )
    parser.add_argument(
        "--sources", type=float, default=0, metavar="SECONDS", help="run the race for files below a root for so long"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder also if nothing is wrong")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
