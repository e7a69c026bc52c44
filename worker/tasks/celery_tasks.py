"""What Celery runs: four tasks, the same in shape. Claim, do the work, settle what went wrong, report to Flower.

The row is the truth and Celery's state of a task only a picture of it: a stale or duplicate message is ignored, a
failure that will be tried again shows as a retry (a bare `Retry`, since `Task.retry` would publish), a final one as a
failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from celery import shared_task, signals
from celery.exceptions import Ignore, Retry

from worker.config.timeouts import Timers
from worker.db.pool import UNAVAILABLE
from worker.errors import Interrupted, SlicewayError, StaleClaim, Stop
from worker.jobs import commands, transitions
from worker.jobs.arguments import Malformed, read
from worker.jobs.leases import Claim
from worker.jobs.retry import GiveUp
from worker.jobs.rows import ClaimedJob
from worker.jobs.states import JobState
from worker.jobs.task_names import TaskName
from worker.tasks.abort import run_abort
from worker.tasks.context import WRITE_AGAIN_S, TaskContext
from worker.tasks.finish import run_finish
from worker.tasks.init import run_init
from worker.tasks.settle import pause_revoked, settle
from worker.tasks.slice import claim_slice, send_slice
from worker.telemetry.emit import emit
from worker.telemetry.log import bound_contextvars, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Task

    from worker.jobs.arguments import Arguments
    from worker.jobs.rows import Claimed, ClaimedSlice
    from worker.tasks.claim_leases import Limit
    from worker.tasks.context import Runtime
    from worker.tasks.guard import ClaimGuard

J = TypeVar("J", bound="Claimed")

log = get_logger(__name__)
_runtime: Runtime | None = None
_OPTIONS: Mapping[str, Any] = {
    "bind": True, "ignore_result": True, "acks_late": False, "max_retries": None,
}  # fmt: skip


def serve(runtime: Runtime | None) -> None:
    """Let the tasks of this process work with ``runtime``; None: no longer."""
    global _runtime  # noqa: PLW0603 - Celery calls the tasks with their message only
    _runtime = runtime


@shared_task(name=TaskName.SLICE, **_OPTIONS)
def slice_task(self: Task, *_: Any, **message: Any) -> None:
    """Send one slice."""

    def take(rt: Runtime, claim: Claim, guard: ClaimGuard, *, reclaim: bool) -> ClaimedSlice:
        return claim_slice(rt, claim, guard, reclaim=reclaim)

    _perform(self, message, Timers.request_limit_s, take, send_slice)


@shared_task(name=TaskName.INIT, **_OPTIONS)
def init_task(self: Task, *_: Any, **message: Any) -> None:
    """Begin an upload, or take it up again; a small file is stored here at once."""
    _perform(self, message, Timers.init_limit_s, _step(JobState.QUEUED, Timers.init_limit_s), run_init)


@shared_task(name=TaskName.FINISH, **_OPTIONS)
def finish_task(self: Task, *_: Any, **message: Any) -> None:
    """Complete the object and verify it."""
    _perform(self, message, Timers.finish_limit_s, _step(JobState.FINISHING, Timers.finish_limit_s), run_finish)


@shared_task(name=TaskName.ABORT, **_OPTIONS)
def abort_task(self: Task, *_: Any, **message: Any) -> None:
    """Clean up after a cancel."""
    _perform(self, message, Timers.abort_limit_s, _step(JobState.CANCELLING, Timers.abort_limit_s), run_abort)


def _step(source: JobState, limit: Limit) -> Callable[..., ClaimedJob]:
    """Return the claim of a step, with lease and deadline as the timeouts of the job's store need them."""

    def take(rt: Runtime, claim: Claim, guard: ClaimGuard, *, reclaim: bool) -> ClaimedJob:
        known = rt.leases  # taken once: a reload of the profiles may replace them
        lease, leases = known.of_step(limit)
        with rt.db.connection() as tx:
            job = transitions.claim_step(tx, claim, source, lease, leases=leases, reclaim=reclaim)
        # counted from before the claim: the lease outlasts it
        guard.deadline_s += limit(rt.timers, known.stores.get(job.store)) - limit(rt.timers, None)
        return job

    return take


def _perform(
    task: Task, message: Mapping[str, Any], limit: Limit, take: Callable[..., J], work: Callable[[TaskContext[J]], None]
) -> None:
    rt = _runtime
    if rt is None:  # the process is on its way out; the row is dispatched again
        raise Ignore
    given = _read(task, message)
    limit_s = limit(rt.timers, None)
    claim = Claim(given.job, given.number, given.token, given.epoch, rt.worker)
    with bound_contextvars(job_id=str(claim.job_id), number=claim.number, token=claim.token, epoch=claim.epoch):
        try:
            with rt.guards.enter(claim, task.request.id, limit_s, alone=given.alone) as guard:
                guard.profiles = rt.settings.profiles
                _run(rt, claim, guard, lambda: _take(rt, claim, guard, take, limit_s), work)
        except StaleClaim as error:
            log.debug("claim.stale", message=error.message)
            raise Ignore from error
        except Interrupted as error:  # before the claim: nothing to give back
            raise Ignore from error
        except UNAVAILABLE as error:
            log.warning("claim.left", error=str(error))
            raise Ignore from error


def _read(task: Task, message: Mapping[str, Any]) -> Arguments:
    """Return what the message says.

    Raises:
        Ignore: no dispatcher wrote it; one line in the log says so.
    """
    try:
        return read(task.name, message, task.request.args or ())
    except Malformed as error:
        log.warning("message.refused", why=str(error), task=task.name, task_id=task.request.id)
        raise Ignore from error


def _take(rt: Runtime, claim: Claim, guard: ClaimGuard, take: Callable[..., J], limit_s: float) -> J:
    """Claim, and repeat the claim while the database is away: no other worker has the message."""
    reclaim = False
    while True:
        try:
            return take(rt, claim, guard, reclaim=reclaim)
        except UNAVAILABLE:
            reclaim = True
            if rt.stopping.wait(WRITE_AGAIN_S):
                raise
            guard.extend(limit_s)


def _run(
    rt: Runtime, claim: Claim, guard: ClaimGuard, take: Callable[[], J], work: Callable[[TaskContext[J]], None]
) -> None:
    """Take the claim and do the work. Whatever comes in between, the claim goes back: it may have been granted."""
    job: J | None = None
    try:
        job = take()
        guard.aborts = isinstance(job, ClaimedJob) and job.state is JobState.CANCELLING
        guard.claimed = True
        rt.guards.note_claimed(job.dispatched_at)
        emit("claim.granted", job_id=claim.job_id, number=claim.number, store=job.store)
        work(TaskContext(rt, claim, job, guard))
    except (StaleClaim, *UNAVAILABLE):
        raise
    except Exception as error:
        if not isinstance(error, SlicewayError):
            log.exception("task.broken")
        _give_back(rt, claim, job, error, guard)
    else:
        rt.slot_freed()


def _give_back(rt: Runtime, claim: Claim, job: Claimed | None, error: Exception, guard: ClaimGuard) -> NoReturn:
    """Settle the claim and raise what Celery is to show.

    Raises:
        Ignore: it was cancelled or revoked.
        Retry: it is dispatched again.
        Exception: the error, if the job has failed by it.
    """
    try:
        decision = settle(rt, claim, job, error, guard)
    except (StaleClaim, *UNAVAILABLE):
        raise
    except Exception as broken:  # by what the row says, or by what is to be written of the error
        log.exception("task.unsettled")
        error = broken
        decision = settle(rt, claim, None, error, guard)
    if isinstance(error, Interrupted) and error.stop in {Stop.CANCELLED, Stop.REVOKED}:
        raise Ignore from error
    emit("task.failed" if isinstance(decision, GiveUp) else "task.deferred", code=getattr(error, "code", "internal"))
    if isinstance(decision, GiveUp):
        raise error
    raise Retry(str(error), exc=error) from error


@signals.task_revoked.connect
def _on_revoked(request: Any = None, terminated: bool = False, expired: bool = False, **_: Any) -> None:
    """Pause the job whose waiting task was revoked: the message is gone, and its id will be discarded for ever.

    An expired message was not revoked, and no dispatcher wrote it: ours never expire.
    """
    rt = _runtime
    if rt is None or terminated or expired:
        return
    try:
        job_id = read(request.task, request.kwargs, request.args).job
    except Malformed:
        return
    with rt.db.transaction() as tx:
        results = pause_revoked(tx, job_id)
    commands.report("pause", "operator", results)
    log.warning("task.revoked", job_id=str(job_id))
    rt.notify_dispatcher()
