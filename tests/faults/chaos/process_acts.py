"""What befalls processes: killed, frozen past their lease, stopped in order."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tests.support.processes import running
from worker.local.process import wait_until

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.lanes import Row, Scene

_GONE_S = 10.0
_LAST_ONES = 0.1
_KNOWN = "SELECT name FROM worker WHERE ended_at IS NULL"


def send(pid: int, signum: signal.Signals) -> bool:
    """Send a signal to one of our processes; false if it is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int | None, **details: object) -> Row | None:
    """SIGKILL; returns what the log has of it, or None if there was nobody."""
    killed = time.time()
    if pid is None or not send(pid, signal.SIGKILL):
        return None
    wait_until(lambda: not running(pid), timeout_s=_GONE_S)
    return {"pid": pid, "killed": killed, **details}


def _at_work(scene: Scene, pids: list[int], chance: random.Random) -> int | None:
    """One of these processes that has said that it lives; any, where the database is away.

    None where it would be the last one at work: starting anew takes longer than the next act. But once in a while it
    is to be the last one.
    """
    pids = [pid for pid in pids if running(pid)]
    try:
        known = {int(row["name"].rpartition(":")[2]) for row in scene.cluster.sql(_KNOWN)}
    except psycopg.Error:
        return chance.choice(pids) if pids else None
    at_work = known.intersection(scene.cluster.worker_pids())
    busy = [pid for pid in pids if pid in at_work]
    return chance.choice(busy) if busy and (len(at_work) > 1 or chance.random() < _LAST_ONES) else None


@dataclass(frozen=True)
class KillWorker:
    """SIGKILL for a worker process, whoever its parent is."""

    name: str = "worker_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        return kill(_at_work(scene, scene.cluster.worker_pids(), chance))


@dataclass(frozen=True)
class KillPoolChild:
    """SIGKILL for a child of a pool parent."""

    name: str = "pool_child_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        return kill(_at_work(scene, scene.cluster.pool_children(), chance))


@dataclass(frozen=True)
class KillPoolParent:
    """SIGKILL for a pool parent: its children end by themselves."""

    name: str = "pool_parent_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        alive = [post.holder.pid for post in scene.cluster.parents if post.holder.alive]
        return kill(chance.choice(alive)) if alive else None


@dataclass(frozen=True)
class KillLeader:
    """SIGKILL for the worker whose dispatcher leads."""

    name: str = "leader_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:  # noqa: ARG002 - there is but one
        """Do it."""
        return kill(scene.cluster.leader())


@dataclass(frozen=True)
class KillApi:
    """SIGKILL for an API process."""

    name: str = "api_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        alive = [post.holder.pid for post in scene.cluster.apis if post.holder.alive]
        return kill(chance.choice(alive)) if alive else None


@dataclass(frozen=True)
class StopWorker:
    """SIGTERM for a worker process, as in every deploy."""

    name: str = "worker_stopped"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        pid = _at_work(scene, scene.cluster.worker_pids(), chance)
        asked = time.time()
        return {"pid": pid, "asked": asked} if pid is not None and send(pid, signal.SIGTERM) else None


@dataclass(frozen=True)
class FreezeWorker:
    """SIGSTOP for a worker until it counts as dead, then SIGCONT: it goes on where it was, with void claims."""

    name: str = "worker_frozen"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        pid = _at_work(scene, scene.cluster.worker_pids(), chance)
        for_s = scene.dead_after_s * chance.uniform(1.2, 3.0)
        if pid is None or not send(pid, signal.SIGSTOP):
            return None
        scene.pause(for_s)
        send(pid, signal.SIGCONT)
        return {"pid": pid, "for_s": for_s}
