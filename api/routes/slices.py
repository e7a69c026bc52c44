"""The slices of a job."""

from fastapi import APIRouter
from starlette.responses import Response

from api.auth import Reader
from api.problems import problem_responses
from api.schemas.jobs import JobId
from api.schemas.pagination import PageQuery, decode_number_cursor, encode_cursor
from api.state import AppStateDep
from api.views.base import json_response
from api.views.slices import SliceList, slice_view
from worker.jobs import queries

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id:uuid}/slices", response_model=SliceList, responses=problem_responses(401, 403, 404, 503))
def list_slices(job_id: JobId, key: Reader, app_state: AppStateDep, page: PageQuery) -> Response:
    """List the slices of a job by number; once it has succeeded, their summary. Needs the scope `read`."""
    job = queries.find_job(app_state.database, job_id, key)
    after = decode_number_cursor(page.cursor)
    found = queries.list_slices(app_state.database, job_id, after=after, limit=page.limit)
    return json_response(
        SliceList(
            items=[slice_view(row) for row in found.rows],
            summary=(job.result or {}).get("slices"),
            next_cursor=encode_cursor(found.rows[-1].number) if found.more else None,
        )
    )
