"""A constraint is checked on the row of the snapshot first, then on the newest: no order of two writes violates it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import (
    AT_ONCE,
    ERROR,
    abandon_job,
    cancel_job,
    retry_job,
    wait_until_blocked,
)
from worker.errors import Conflict, StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Acknowledged, Claim

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection

Write = Callable[["Connection", "UUID", Claim], object]


def fail_and_retry(tx: Connection, job: UUID, claim: Claim) -> None:
    transitions.fail(tx, claim, ERROR)
    retry_job(tx, job)


def checkpoint(tx: Connection, _: UUID, claim: Claim) -> object:
    return transitions.checkpoint(tx, [Acknowledged(claim, None, None)], claim.worker)


FIRST: dict[str, Write] = {
    "cancel": lambda tx, job, _: cancel_job(tx, job),
    "pause": lambda tx, job, _: control.pause(tx, [job], "o", "why"),
    "abandon": lambda tx, job, _: abandon_job(tx, job),
    "fail": lambda tx, _, claim: transitions.fail(tx, claim, ERROR),
    "fail and retry": fail_and_retry,
    "new epoch": lambda tx, _, claim: transitions.new_epoch(tx, claim, ERROR, None),
    "last checkpoint": checkpoint,
}
THEN: dict[str, Write] = {
    "cancel": FIRST["cancel"],
    "pause": FIRST["pause"],
    "retry": lambda tx, job, _: retry_job(tx, job),
    "resume": lambda tx, job, _: control.resume(tx, [job], "o"),
    "abandon": FIRST["abandon"],
    "retry from scratch": lambda tx, job, _: retry_job(tx, job, scratch=True),
    "priority": lambda tx, job, _: control.prioritise(tx, [job], "o", 0),
    "start": lambda tx, job, _: control.start_now(tx, [job], "o"),
    "quarantine": lambda tx, job, _: transitions.quarantine(tx, job, 1, ERROR),
    "fail": FIRST["fail"],
    "new epoch": FIRST["new epoch"],
    "release": lambda tx, _, claim: transitions.release(tx, claim, AT_ONCE),
    "checkpoint": checkpoint,
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("then", THEN)
def test_a_write_that_waited_for_another_is_made_or_refused(db: JobsDatabase, first: str, then: str) -> None:
    held = [0] if first == "last checkpoint" else []
    job = db.uploading(2, held=held)
    claims = db.take(job, *(number for number in (0, 1) if number not in held))
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tx = stack.enter_context(db.transaction())
        FIRST[first](tx, job, claims[-1])

        def write() -> None:
            with db.transaction() as other, suppress(StaleClaim, Conflict):
                THEN[then](other, job, claims[0])

        waiting = pool.submit(write)
        wait_until_blocked(db)
        stack.close()
        waiting.result(120)
