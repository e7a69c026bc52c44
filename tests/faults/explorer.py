"""Every state that a small world can come to, with the product's own statements, tasks and driver.

    python -m tests.faults.explorer            the large worlds, minutes
    python -m tests.faults.explorer --small    those of the test, whole

Breadth first, so that the path to a broken law is a shortest one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import dict_row

from tests.faults.explorer_laws import Laws
from tests.faults.explorer_program import EdgeStore, Programs
from tests.faults.explorer_rows import Rows
from tests.faults.explorer_world import JOB, Moves
from worker.db import migrate, plain_url
from worker.jobs.transitions import NewJob
from worker.limits import MIB
from worker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.faults.explorer_world import State, World

_STORES = """
[stores.main]
protocol = "cos-json"
endpoint = "http://127.0.0.1:1"
appid = "10055004"
bucket = "uploads"
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
"""


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
        mutations: Mapping[str, tuple[str, str]] | None = None,
        driver: type[EdgeStore] = EdgeStore,
    ) -> None:
        """Search nothing yet.

        Args:
            world: to be searched.
            database_url: of a migrated, empty database; nothing is ever committed there.
            folder: for the stores file.
            mutations: see `Rows`.
            driver: see `Programs`.
        """
        self._world, self._url, self._driver, self._mutations = world, database_url, driver, mutations
        file = folder / "stores.toml"
        file.write_text(_STORES)
        self._settings = Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0", stores_file=file)

    def explore(self, most: int = 10_000_000) -> Explored:
        """Search the world breadth first, up to so many states.

        Raises:
            Broken: a law does not hold.
        """
        with psycopg.connect(plain_url(self._url), autocommit=True, row_factory=dict_row) as tx:
            rows = Rows(tx, self._mutations)
            names = {text: name for name, text in rows.statements.items()}
            programs = Programs(self._settings, self._world.content, names, self._driver)
            moves = Moves(self._world, rows, programs)
            return _search(moves, moves.begin(self._job()), most)

    def _job(self) -> NewJob:
        profile = self._settings.profiles.stores["main"]
        return NewJob(
            id=JOB, tenant="t", priority=5, source={"kind": "file", "root": "r", "path": "p"}, store="main", key="key",
            target=profile.target("key"), overwrite=self._world.overwrite, labels={}, verify="auto",
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
