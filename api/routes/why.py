"""Why jobs wait: one job, and all of them together."""

from fastapi import APIRouter
from starlette.responses import Response

from api.auth import Reader
from api.problems import problem_responses
from api.schemas.jobs import JobId
from api.state import AppStateDep
from api.views.base import json_response
from api.views.why import JobWhyView, QueueWhyView, job_why_view, queue_why_view
from worker.db.repetition import run_idempotent
from worker.jobs import why_snapshot

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/jobs/{job_id:uuid}/why", response_model=JobWhyView, responses=problem_responses(401, 403, 404, 503))
def job_why(job_id: JobId, key: Reader, app_state: AppStateDep) -> Response:
    """Say why a job waits, in words and as data. Needs the scope `read`."""
    settings = app_state.settings
    found = run_idempotent(app_state.database, lambda tx: why_snapshot.job_why(tx, job_id, key, settings))
    return json_response(job_why_view(job_id, found))


@router.get("/why", response_model=QueueWhyView, responses=problem_responses(401, 403, 503))
def queue_why(key: Reader, app_state: AppStateDep) -> Response:
    """Say what all jobs that wait are waiting for. Needs the scope `read`; with `admin` of every tenant's jobs."""
    settings = app_state.settings
    found = run_idempotent(app_state.database, lambda tx: why_snapshot.queue_why(tx, key, settings))
    return json_response(queue_why_view(found))
