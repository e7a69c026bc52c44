"""Actions on a job: retry, cancel."""

from fastapi import APIRouter

from api.auth import Operator
from api.problems import problem_responses
from api.schemas.actions import RetryQuery
from api.schemas.jobs import JobId
from api.state import AppStateDep
from api.views.actions import JobMoved
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.jobs import commands
from worker.jobs.control import CommandResult

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("/{job_id:uuid}/retry", responses=problem_responses(401, 403, 404, 409, 503))
def retry_job(job_id: JobId, key: Operator, app_state: AppStateDep, query: RetryQuery) -> JobMoved:
    """Put a failed, cancelled or paused job back to work; on a live one nothing happens. Needs the scope `operate`."""
    # Not sent again if its response is lost. In the meantime the job may have failed again, and a second retry would
    # restart it; or it may have succeeded, and a second retry would be refused.
    with app_state.database.transaction() as tx:
        profiles = app_state.settings.profiles
        (result,) = commands.retry(tx, [job_id], key, profiles, force=query.force, savepoint=False)
    commands.report("retry", key.actor, [result])
    return JobMoved(id=job_id, state=result.state_or_raise())


@router.post("/{job_id:uuid}/cancel", responses=problem_responses(401, 403, 404, 409, 503))
def cancel_job(job_id: JobId, key: Operator, app_state: AppStateDep) -> JobMoved:
    """Cancel a job: from the answer on, none of its slices is begun. Needs the scope `operate`."""

    def cancel(connection: Connection) -> CommandResult:
        with connection.transaction():
            (result,) = commands.cancel(connection, [job_id], key)
            return result

    result = run_idempotent(app_state.database, cancel)  # a second cancel of the same job changes nothing
    commands.report("cancel", key.actor, [result])
    return JobMoved(id=job_id, state=result.state_or_raise())
