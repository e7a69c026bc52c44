"""The slices of a job."""

from fastapi import APIRouter
from starlette.responses import Response

from api.auth import Reader
from api.problems import refusals
from api.routes.jobs import JobId
from api.schemas.filters import PageQuery
from api.state import AppStateDep
from api.views import SliceList, cursor, number_after, rendered, slice_view
from worker.jobs import queries

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id:uuid}/slices", response_model=SliceList, responses=refusals(401, 403, 404, 503))
def list_slices(job_id: JobId, key: Reader, app_state: AppStateDep, page: PageQuery) -> Response:
    """List the slices of a job by number; once it has succeeded, their summary. Needs the scope `read`."""
    job = queries.find_job(app_state.database, job_id, key)
    found = queries.list_slices(app_state.database, job_id, after=number_after(page.cursor), limit=page.limit)
    return rendered(
        SliceList(
            items=[slice_view(row) for row in found.rows],
            summary=(job.result or {}).get("slices"),
            next_cursor=cursor(found.rows[-1].number) if found.more else None,
        )
    )
