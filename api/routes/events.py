"""The history of a job."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Reader
from api.problems import problem_responses
from api.schemas.jobs import JobId
from api.schemas.pagination import PageQuery, decode_number_cursor, encode_cursor
from api.state import AppStateDep
from api.views.base import json_response
from api.views.events import EventList, event_view
from worker.errors import NotSupported
from worker.jobs import queries

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id:uuid}/events", response_model=EventList, responses=problem_responses(401, 403, 404, 503))
def list_events(request: Request, job_id: JobId, key: Reader, app_state: AppStateDep, page: PageQuery) -> Response:
    """List what has happened to a job, oldest first. Needs the scope `read`."""
    if "text/event-stream" in request.headers.get("accept", ""):
        raise NotSupported("a live stream of events is not served yet", advice="Ask again with `cursor`, as JSON.")
    queries.find_job(app_state.database, job_id, key)
    after = decode_number_cursor(page.cursor)
    found = queries.list_events(app_state.database, job_id, after=after, limit=page.limit)
    return json_response(
        EventList(
            items=[event_view(row) for row in found.rows],
            next_cursor=encode_cursor(found.rows[-1].id) if found.more else None,
        )
    )
