"""An explicit-state model checker: it visits every state of a small world, with the product's own code.

The search is breadth first, so that the path to a violated invariant is a shortest one.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.explorer.invariants import Invariants
from tests.faults.explorer.replay import ReplayDriver, TaskReplayer
from tests.faults.explorer.rows import Rows
from tests.faults.explorer.state import JOB
from tests.faults.explorer.successors import Successors
from worker.config.settings import Settings
from worker.db.pool import conninfo
from worker.db.session_settings import startup
from worker.jobs.transitions import NewJob
from worker.protocols.spec import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.faults.explorer.state import State, World

_STORES = """
[stores.main]
protocol = "cos-json"
endpoint = "http://127.0.0.1:1"
appid = "10055004"
bucket = "uploads"
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
"""


class InvariantViolated(Exception):
    """An invariant does not hold; the text is the shortest path to the violation."""


@dataclass
class Explored:
    """How much of a world the search has seen."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    injected: Counter[str] = field(default_factory=Counter)
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
            f"{self.injected['crash']:,} crashes and {self.injected['fault']:,} other faults injected, "
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
        driver: type[ReplayDriver] = ReplayDriver,
    ) -> None:
        """Search nothing yet.

        Args:
            world: to search.
            database_url: of a migrated, empty database; the search commits nothing there.
            folder: for the stores file.
            dropped: see `Rows`.
            driver: see `TaskReplayer`.
        """
        self._world, self._url, self._driver, self._dropped = world, database_url, driver, dropped
        file = folder / "stores.toml"
        file.write_text(_STORES)
        self._settings = Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0", stores_file=file)

    def explore(self, max_states: int = 10_000_000) -> Explored:
        """Search the world breadth first, up to so many states.

        Raises:
            InvariantViolated: an invariant does not hold.
        """
        options: dict[str, Any] = {"prepare_threshold": 0, **startup(self._url, pooled=False, plan_once=True)}
        connection = psycopg.connect(conninfo(self._url), autocommit=True, row_factory=dict_row, **options)
        with connection as tx:
            rows = Rows(tx, self._dropped)
            names = {text: name for name, text in rows.statements.items()}
            replayer = TaskReplayer(self._settings, self._world.content, names, self._driver)
            successors = Successors(self._world, rows, replayer)
            return _search(successors, successors.first(self._job()), max_states)

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


def _search(successors: Successors, first: State, max_states: int) -> Explored:
    began, explored, invariants, rows = time.monotonic(), Explored(), Invariants(successors), successors.rows
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    frontier = deque([(first, 0)])
    while frontier:
        state, depth = frontier.popleft()
        explored.states += 1
        explored.depth = max(explored.depth, depth)
        explored.ends[rows.job(state.rows)["state"]] += 1
        if stuck := invariants.stuck(state):
            raise InvariantViolated(_path(came_from, state, ["-- from here on without further faults:", *stuck]))
        for transition in successors.after(state):
            explored.transitions += 1
            if transition.fault:
                explored.injected["crash" if ": crashes" in transition.description else "fault"] += 1
            if violation := invariants.violation(state, transition):
                raise InvariantViolated(_path(came_from, state, [transition.description, f"=> {violation}"]))
            if transition.state not in came_from:
                if len(came_from) >= max_states:
                    explored.whole = False
                    continue
                came_from[transition.state] = state, transition.description
                frontier.append((transition.state, depth + 1))
    explored.seconds = time.monotonic() - began
    explored.rows, explored.statements, explored.runs = len(rows), rows.runs, successors.replayer.runs
    return explored


def _path(came_from: Mapping[State, tuple[State, str] | None], state: State, rest: list[str]) -> str:
    steps: list[str] = []
    while (before := came_from[state]) is not None:
        state, description = before
        steps.append(description)
    return "\n".join(f"{number:3}. {line}" for number, line in enumerate([*reversed(steps), *rest], 1))
