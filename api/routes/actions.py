"""Actions on a job."""

from collections.abc import Callable
from uuid import UUID

from fastapi import APIRouter

from api.action_request import ActionDep, ActionRequest, body_of
from api.problems import problem_responses
from api.schemas.actions import ActionBody, PriorityBody, RetryBody, RetryQuery
from api.schemas.jobs import JobId
from api.views.actions import HeldBackView, JobChanged, JobMoved, JobStarted
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.jobs import commands
from worker.jobs.command_results import CommandResult
from worker.jobs.held_back import held_back

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_REFUSALS = (401, 403, 404, 413, 415, 503)


@router.post("/{job_id:uuid}/retry", responses=problem_responses(*_REFUSALS, 409), openapi_extra=body_of("RetryBody"))
def retry_job(job_id: JobId, request: ActionDep, query: RetryQuery) -> JobMoved:
    """Put a failed, cancelled or paused job back to work; on a live one nothing happens. Needs the scope `operate`."""
    body, app_state = request.parse(RetryBody), request.app_state
    acting, scratch = request.acting(body.reason), body.from_ == "scratch"
    # Not sent again if its response is lost. In the meantime the job may have failed again, and a second retry would
    # restart it; or it may have succeeded, and a second retry would be refused.
    with app_state.database.transaction() as tx:
        profiles = app_state.settings.profiles
        (result,) = commands.retry(tx, [job_id], acting, profiles, force=query.force, scratch=scratch)
    return JobMoved(id=job_id, state=_reported("retry", request, result).state_or_raise())


@router.post("/{job_id:uuid}/cancel", responses=problem_responses(*_REFUSALS, 409), openapi_extra=body_of("ActionBody"))
def cancel_job(job_id: JobId, request: ActionDep) -> JobMoved:
    """Cancel a job: from the answer on, none of its slices is begun. Needs the scope `operate`."""
    acting = request.acting(request.parse(ActionBody).reason)
    result = _act(request, lambda tx: commands.cancel(tx, [job_id], acting))
    return JobMoved(id=job_id, state=_reported("cancel", request, result).state_or_raise())


@router.post(
    "/{job_id:uuid}/abandon", responses=problem_responses(*_REFUSALS, 409), openapi_extra=body_of("ActionBody")
)
def abandon_job(job_id: JobId, request: ActionDep) -> JobChanged:
    """Cancel a job without its store: it ends when its requests have, and its session is left open.

    Also for a job that is being cancelled. Needs the scope `operate`.
    """
    acting = request.acting(request.parse(ActionBody).reason)
    return _changed("abandon", request, job_id, lambda tx: commands.cancel(tx, [job_id], acting, abandon=True))


@router.post("/{job_id:uuid}/pause", responses=problem_responses(*_REFUSALS), openapi_extra=body_of("ActionBody"))
def pause_job(job_id: JobId, request: ActionDep) -> JobChanged:
    """Begin no more work of a job until it is resumed; what is in flight ends. Needs the scope `operate`."""
    acting = request.acting(request.parse(ActionBody).reason)
    return _changed("pause", request, job_id, lambda tx: commands.pause(tx, [job_id], acting))


@router.post("/{job_id:uuid}/resume", responses=problem_responses(*_REFUSALS), openapi_extra=body_of("ActionBody"))
def resume_job(job_id: JobId, request: ActionDep) -> JobChanged:
    """Let a paused job go on. Needs the scope `operate`."""
    acting = request.acting(request.parse(ActionBody).reason)
    return _changed("resume", request, job_id, lambda tx: commands.resume(tx, [job_id], acting))


@router.post(
    "/{job_id:uuid}/priority",
    responses=problem_responses(*_REFUSALS),
    openapi_extra=body_of("PriorityBody", required=True),
)
def prioritise_job(job_id: JobId, request: ActionDep) -> JobChanged:
    """Give a job another priority, for what is dispatched from now on. Needs the scope `operate`."""
    body = request.parse(PriorityBody)
    acting = request.acting(body.reason)
    return _changed("priority", request, job_id, lambda tx: commands.prioritise(tx, [job_id], acting, body.priority))


@router.post("/{job_id:uuid}/start", responses=problem_responses(*_REFUSALS), openapi_extra=body_of("ActionBody"))
def start_job(job_id: JobId, request: ActionDep) -> JobStarted:
    """End a job's wait for its next attempt; the answer says what holds it back nevertheless. Needs `operate`."""
    acting = request.acting(request.parse(ActionBody).reason)
    changed = _changed("start", request, job_id, lambda tx: commands.start_now(tx, [job_id], acting))
    holds = run_idempotent(request.app_state.database, lambda tx: held_back(tx, job_id))
    views = [HeldBackView.model_validate(each) for each in holds]
    return JobStarted(id=job_id, state=changed.state, changed=changed.changed, held_back=views)


def _changed(
    command: str, request: ActionRequest, job_id: UUID, work: Callable[[Connection], list[CommandResult]]
) -> JobChanged:
    result = _reported(command, request, _act(request, work))
    return JobChanged(id=job_id, state=result.state_or_raise(), changed=result.changed)


def _act(request: ActionRequest, work: Callable[[Connection], list[CommandResult]]) -> CommandResult:
    """Run a command on one job; it may be run twice, since the second time it changes nothing."""

    def act(connection: Connection) -> CommandResult:
        with connection.transaction():
            (result,) = work(connection)
            return result

    return run_idempotent(request.app_state.database, act)


def _reported(command: str, request: ActionRequest, result: CommandResult) -> CommandResult:
    commands.report(command, request.key.actor, [result])
    return result
