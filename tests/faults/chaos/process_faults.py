"""Faults of processes: SIGKILL, SIGSTOP past their lease, SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psycopg

from tests.support.processes import running
from worker.local.process import wait_until

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.fault_injector import FaultContext, Row

_KILL_TIMEOUT_S = 10.0
_LAST_WORKER_SHARE = 0.1
_LIVE = "SELECT name FROM worker WHERE ended_at IS NULL"


def worker_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for any worker process."""
    return _kill(_live_worker(context, context.cluster.worker_pids(), chance))


def pool_child_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for a child of a pool parent."""
    return _kill(_live_worker(context, context.cluster.pool_children(), chance))


def pool_parent_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for a pool parent: its children end by themselves."""
    pids = context.cluster.parent_pids()
    return _kill(chance.choice(pids)) if pids else None


def leader_killed(context: FaultContext, chance: random.Random) -> Row | None:  # noqa: ARG001 - there is only one
    """SIGKILL for the worker whose dispatcher leads."""
    return _kill(context.cluster.leader())


def api_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for an API process."""
    pids = context.cluster.api_pids()
    return _kill(chance.choice(pids)) if pids else None


def worker_stopped(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGTERM for a worker process, as in every deploy."""
    pid = _live_worker(context, context.cluster.worker_pids(), chance)
    asked = time.time()
    return {"pid": pid, "asked": asked} if pid is not None and _send(pid, signal.SIGTERM) else None


def worker_frozen(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGSTOP for a worker until it is declared dead, then SIGCONT: it continues with claims that it has lost."""
    pid = _live_worker(context, context.cluster.worker_pids(), chance)
    for_s = context.dead_after_s * chance.uniform(1.2, 3.0)
    if pid is None or not _send(pid, signal.SIGSTOP):
        return None
    context.pause(for_s)
    _send(pid, signal.SIGCONT)
    return {"pid": pid, "for_s": for_s}


def _kill(pid: int | None) -> Row | None:
    killed = time.time()
    if pid is None or not _send(pid, signal.SIGKILL):
        return None
    wait_until(lambda: not running(pid), timeout_s=_KILL_TIMEOUT_S)
    return {"pid": pid, "killed": killed}


def _send(pid: int, signum: signal.Signals) -> bool:
    """Send a signal; false if the process has ended."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def _live_worker(context: FaultContext, pids: list[int], chance: random.Random) -> int | None:
    """Choose one of these processes that the database knows as live; any, while the database is down.

    Return None, with a small exception, if it is the last live worker: a new one needs longer to start than the next
    fault takes to come.
    """
    pids = [pid for pid in pids if running(pid)]
    try:
        known = {int(row["name"].rpartition(":")[2]) for row in context.cluster.sql(_LIVE)}
    except psycopg.Error:
        return chance.choice(pids) if pids else None
    live = known.intersection(context.cluster.worker_pids())
    targets = [pid for pid in pids if pid in live]
    return chance.choice(targets) if targets and (len(live) > 1 or chance.random() < _LAST_WORKER_SHARE) else None
