"""Counts of jobs."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Reader
from api.problems import problem_responses
from api.schemas.filters import CountOptions, described, read_query
from api.state import AppStateDep
from api.views.base import json_response
from api.views.counts import CountsView, counts_view
from worker.jobs.counts import count_jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/counts",
    response_model=CountsView,
    responses=problem_responses(401, 403, 503),
    openapi_extra=described(CountOptions),
)
def count(request: Request, key: Reader, app_state: AppStateDep) -> Response:
    """Count the jobs that match, in groups. Needs the scope `read`; other tenants' jobs need `admin`."""
    which, options = read_query(request.url.query, key, CountOptions)
    counts = count_jobs(app_state.database, which, options.group_by, exact=options.exact)
    return json_response(counts_view(options.group_by, counts))
