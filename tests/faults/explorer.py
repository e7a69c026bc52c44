"""Every state that a small world can come to, with the product's own statements, tasks and driver.

    python -m tests.faults.explorer            the large worlds, for minutes
    python -m tests.faults.explorer --small    those of the test
    python -m tests.faults.explorer --most 100000 stranger    those named so, no more states than that of each

Breadth first, so that the path to a broken law is a shortest one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.explorer_laws import Laws
from tests.faults.explorer_program import EdgeStore, Programs
from tests.faults.explorer_rows import Rows
from tests.faults.explorer_state import JOB, Fault, Stranger, World
from tests.faults.explorer_world import Moves
from worker.config.settings import Settings
from worker.db.migrate import migrate
from worker.db.pool import conninfo
from worker.db.session_settings import startup
from worker.jobs.transitions import NewJob
from worker.local.postgres import EmbeddedPostgres
from worker.protocols.spec import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.faults.explorer_state import State

_STORES = """
[stores.main]
protocol = "cos-json"
endpoint = "http://127.0.0.1:1"
appid = "10055004"
bucket = "uploads"
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
"""


#: Searched whole by the test.
SMALL: Mapping[str, World] = {
    "two slices, a crash anywhere": World(faults=1, kinds=frozenset({Fault.CRASH})),
    "one slice, one fault of any kind anywhere": World(slices=1, faults=1),
    "one slice, a cancel and a retry": World(slices=1, cancels=1, retries=1),
    "one slice, a worker cut off from the database": World(
        slices=1, faults=1, kinds=frozenset({Fault.PAUSE, Fault.CUT_OFF})
    ),
    "one slice, a lease ends, a cancel": World(slices=1, faults=1, kinds=frozenset({Fault.LAPSE}), cancels=1),
    "one slice, a stranger acts": World(slices=1, strangers=1),
    "verified, half of another file is there, a crash": World(
        verified=True, predecessor=Stranger.BEGIN_HALF, faults=1, kinds=frozenset({Fault.CRASH})
    ),
    "verified, half of the same file is there, a crash": World(
        verified=True, predecessor=Stranger.BEGIN_SAME, faults=1, kinds=frozenset({Fault.CRASH})
    ),
    "verified, half of the same file is there, and the list does not say so": World(
        verified=True, predecessor=Stranger.BEGIN_SAME, named=False, marked=False
    ),
    "verified, another's upload is there and goes on": World(
        verified=True, marked=False, predecessor=Stranger.BEGIN_NAMED, strangers=1
    ),
    "one slice verified, a stranger acts": World(slices=1, verified=True, strangers=1),
    "one request, one fault, a cancel": World(slices=0, faults=1, cancels=1),
    "one request over an object, one fault": World(slices=0, overwrite=True, existed=True, faults=1),
}
#: Searched by hand, for minutes.
LARGE: Mapping[str, World] = {
    "two slices, one fault, a cancel and a retry": World(faults=1, cancels=1, retries=1),
    "one slice, one fault, a cancel and a retry": World(slices=1, faults=1, cancels=1, retries=1),
    "two slices, two faults": World(faults=2),
    "two slices, one fault, a stranger acts": World(faults=1, strangers=1),
    "two slices verified, one fault, a stranger acts": World(verified=True, faults=1, strangers=1),
    "verified over an object, half of another file is there, one fault": World(
        verified=True, overwrite=True, existed=True, marked=False, predecessor=Stranger.BEGIN_HALF, faults=1
    ),
    "two slices over an object, one fault, a cancel": World(overwrite=True, existed=True, faults=1, cancels=1),
    "one slice, two faults, a cancel, a stranger acts": World(slices=1, faults=2, cancels=1, strangers=1),
    "one request, two faults, a cancel and a retry, a stranger acts": World(
        slices=0, faults=2, cancels=1, retries=1, strangers=1
    ),
}


class Broken(Exception):
    """A law does not hold; its text is the shortest path there, in words."""


@dataclass
class Explored:
    """How much of a world was seen."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    placed: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    statements: int = 0
    runs: int = 0
    rows: int = 0
    seconds: float = 0.0
    whole: bool = True

    def __str__(self) -> str:
        ends = ", ".join(f"{state} {count:,}" for state, count in sorted(self.ends.items()))
        return (
            f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, "
            f"{self.placed['crash']:,} crashes and {self.placed['fault']:,} other faults placed, "
            f"{self.rows:,} sets of rows, {self.statements:,} statements and {self.runs:,} task runs executed, "
            f"{self.seconds:.1f} s, {'whole' if self.whole else 'NOT whole'}; ends: {ends}"
        )


class Explorer:
    """Searches a world."""

    def __init__(
        self,
        world: World,
        database_url: str,
        folder: Path,
        *,
        dropped: Mapping[str, Sequence[str]] | None = None,
        driver: type[EdgeStore] = EdgeStore,
    ) -> None:
        """Search nothing yet.

        Args:
            world: to be searched.
            database_url: of a migrated, empty database; nothing is ever committed there.
            folder: for the stores file.
            dropped: see `Rows`.
            driver: see `Programs`.
        """
        self._world, self._url, self._driver, self._dropped = world, database_url, driver, dropped
        file = folder / "stores.toml"
        file.write_text(_STORES)
        self._settings = Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0", stores_file=file)

    def explore(self, most: int = 10_000_000) -> Explored:
        """Search the world breadth first, up to so many states.

        Raises:
            Broken: a law does not hold.
        """
        options: dict[str, Any] = {"prepare_threshold": 0, **startup(self._url, pooled=False, plan_once=True)}
        connection = psycopg.connect(conninfo(self._url), autocommit=True, row_factory=dict_row, **options)
        with connection as tx:
            rows = Rows(tx, self._dropped)
            names = {text: name for name, text in rows.statements.items()}
            programs = Programs(self._settings, self._world.content, names, self._driver)
            moves = Moves(self._world, rows, programs)
            return _search(moves, moves.begin(self._job()), most)

    def _job(self) -> NewJob:
        profile = self._settings.profiles.stores["main"]
        return NewJob(
            id=JOB, tenant="t", priority=5, source={"kind": "file", "root": "r", "path": "p"}, store="main", key="key",
            target=profile.target("key"), overwrite=self._world.overwrite, labels={},
            verify="file" if self._world.verified else "auto",
            attributes=None if self._world.marked else "its own",
            slice_size=MIB if self._world.slices else None, retry_for_s=2_000_000_000, idempotency_key=None,
            request_digest=None,
        )  # fmt: skip


def _search(moves: Moves, first: State, most: int) -> Explored:
    began, explored, laws = time.monotonic(), Explored(), Laws(moves)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    front = deque([(first, 0)])
    while front:
        state, depth = front.popleft()
        explored.states += 1
        explored.depth = max(explored.depth, depth)
        explored.ends[moves.rows.job(state.rows)["state"]] += 1
        if stuck := laws.stuck(state):
            raise Broken(_told(came_from, state, ["-- from here on nothing goes wrong any more:", *stuck]))
        for happened in moves.after(state):
            explored.transitions += 1
            if happened.fault:
                explored.placed["crash" if ": dies" in happened.words else "fault"] += 1
            if law := laws.broken(state, happened):
                raise Broken(_told(came_from, state, [happened.words, f"=> {law}"]))
            if happened.state not in came_from:
                if len(came_from) >= most:
                    explored.whole = False
                    continue
                came_from[happened.state] = state, happened.words
                front.append((happened.state, depth + 1))
    explored.seconds = time.monotonic() - began
    explored.rows, explored.statements, explored.runs = len(moves.rows), moves.rows.runs, moves.programs.runs
    return explored


def _told(came_from: Mapping[State, tuple[State, str] | None], state: State, rest: list[str]) -> str:
    words: list[str] = []
    while (before := came_from[state]) is not None:
        state, what = before
        words.append(what)
    return "\n".join(f"{number:3}. {line}" for number, line in enumerate([*reversed(words), *rest], 1))


def main() -> int:
    """Search worlds on a PostgreSQL of one's own, and print how much of each was seen."""
    parser = argparse.ArgumentParser(description="Search small worlds whole.")
    parser.add_argument("words", nargs="?", default="", help="only worlds whose name has these words")
    parser.add_argument("--small", action="store_true", help="the worlds of the test")
    parser.add_argument("--most", type=int, default=10_000_000, help="no more states of a world than this")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what tasks say of faults is no news here
    with tempfile.TemporaryDirectory(prefix="sliceway-explorer-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database may run as another user
        server = EmbeddedPostgres(folder / "postgres", durable=False)
        server.start()
        try:
            url = _database(server)
            broken = 0
            for title, world in (SMALL if asked.small else LARGE).items():
                if asked.words in title:
                    broken += _shown(title, Explorer(world, url, folder), asked.most)
        finally:
            server.stop("immediate")
    return min(1, broken)


def _database(server: EmbeddedPostgres) -> str:
    with psycopg.connect(conninfo(server.url_of("postgres")), autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_explorer")
    url = server.url_of("test_explorer")
    migrate(url)
    return url


def _shown(title: str, explorer: Explorer, most: int) -> bool:
    try:
        sys.stdout.write(f"{title}: {explorer.explore(most)}\n")
    except Broken as broken:
        sys.stdout.write(f"{title}: BROKEN\n{broken}\n")
        return True
    finally:
        sys.stdout.flush()
    return False


if __name__ == "__main__":
    sys.exit(main())
