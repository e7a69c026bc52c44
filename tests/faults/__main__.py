"""`python -m tests.faults`: the kill loops and races in their long form; exit code 1 if anything is wrong."""

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

from tests.faults.chaos.drills import Drills
from tests.faults.chaos.run import Plan, Run
from tests.support.source_race import SourceRace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.chaos.judgement import Judgement

_JOBS_A_MINUTE = 667
_SCALES = {"short": 0.2, "shipped": 1.0}
_SHOWN = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and prints what it has shown."""
    given = _arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="sliceway-faults-"))
    folder.chmod(0o711)  # the embedded database may run as another user
    began = time.monotonic()
    if given.sources:
        return _race(given.seed, given.sources, folder)
    run = _drills(given, folder) if given.recovery else _run(given, folder)
    try:
        run.play()
        judgement = run.judge()
    finally:
        run.cluster.close()
    _tell(judgement, folder, time.monotonic() - began)
    if not judgement.wrong and not given.keep:
        shutil.rmtree(folder)
    return 1 if judgement.wrong else 0


def _drills(given: argparse.Namespace, folder: Path) -> Drills:
    say(f"seed {given.seed}, {given.rounds} rounds of one fault at a time, shipped timers, in {folder}")
    return Drills(given.seed, given.rounds, folder)


def _race(seed: int, seconds: float, folder: Path) -> int:
    mounts = os.geteuid() == 0
    say(f"seed {seed}, {seconds:g} s of opening files that are renamed, linked" + (", unmounted" if mounts else ""))
    if not mounts:
        say("NOT TESTED HERE: unmounted roots; only root can mount")
    race = SourceRace(folder, seed, mounts=mounts)
    race.play(seconds=seconds)
    shutil.rmtree(folder)
    say(f"{race.outcomes.total():,} opened: {dict(race.outcomes.most_common())}")
    for what, times in race.wrong.items():
        say(f"WRONG: {what}, {times} times")
    return 1 if race.wrong else 0


def _run(given: argparse.Namespace, folder: Path) -> Run:
    plan = Plan(
        seed=given.seed,
        acting_s=60 * given.minutes,
        jobs=given.jobs or int(given.minutes * _JOBS_A_MINUTE),
        time_scale=_SCALES[given.timers],
        pace=given.pace,
        workers=given.workers,
        link_bytes_per_s=given.link,
    )
    say(f"seed {plan.seed}, {plan.jobs} jobs, {given.minutes:g} minutes of faults, {given.timers} timers, in {folder}")
    return Run(plan, folder)


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(judgement: Judgement, folder: Path, took_s: float) -> None:
    figures = [*judgement.figures, ("took", f"{took_s:.0f} s"), ("again with", _command())]
    width = max(len(name) for name, _ in figures)
    lines = [f"{name:<{width}}  {value}" for name, value in figures]
    (folder / "figures.txt").write_text("\n".join(lines) + "\n")
    (folder / "wrong.txt").write_text("".join(f"{what}\n" for what in judgement.wrong))
    say("\n" + "\n".join(lines))
    for what in judgement.wrong[:_SHOWN]:
        say(f"WRONG: {what}")
    if judgement.wrong:
        say(f"{len(judgement.wrong)} things are wrong; the evidence is in {folder}")
    else:
        say("nothing is wrong")


def _command() -> str:
    return shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the jobs and of the acts (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="how long faults are done (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help=f"default: {_JOBS_A_MINUTE} a minute")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=1.0, help="2 leaves twice the time between acts")
    parser.add_argument("--timers", choices=_SCALES, default="short", help="short: a fifth of those shipped (default)")
    parser.add_argument("--link", type=int, metavar="BYTES", help="what the link to the store carries a second")
    parser.add_argument(
        "--recovery", action="store_true", help="one fault at a time, shipped timers, and their targets"
    )
    parser.add_argument("--rounds", type=int, default=30, help="of --recovery: how often each (default: %(default)s)")
    parser.add_argument(
        "--sources", type=float, default=0, metavar="SECONDS", help="the race for files below a root, for so long"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder though nothing is wrong")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
