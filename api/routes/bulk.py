"""Actions on all jobs that match a filter."""

from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from api.action_request import ActionDep, ActionRequest, body_of
from api.auth import Reader
from api.problems import problem_responses
from api.schemas.actions import ActionBody
from api.schemas.bulk import BulkBody
from api.schemas.filters import of_key
from api.schemas.pagination import PageQuery, decode_job_cursor, encode_cursor
from api.state import AppStateDep
from api.views.base import json_response
from api.views.bulk import BulkCount, BulkList, BulkView, bulk_view
from api.views.jobs import job_views
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.errors import Conflict
from worker.jobs import bulk, filters, queries
from worker.jobs.bulk import Confirmed
from worker.jobs.bulk_rows import BulkAction
from worker.jobs.counts import count_jobs
from worker.jobs.filters import Filter

router = APIRouter(prefix="/v1/jobs/actions", tags=["jobs"])
SAMPLE_JOBS = 10


@router.post(
    "",
    status_code=202,
    response_model=BulkView,
    responses={
        200: {"model": BulkCount, "description": "Dry run"},
        **problem_responses(401, 403, 409, 413, 415, 503),
    },
    openapi_extra=body_of("BulkBody", required=True),
)
def act_on_all(request: ActionDep) -> Response:
    """Act on all jobs that match a filter. Needs the scope `operate`; other tenants' jobs need `admin`.

    A dry run counts them. With its count as `confirm` the action is kept, and the workers' leader carries it out.
    """
    body = request.parse(BulkBody)
    which = filters.parse(body.filter)
    bulk.check_has_condition(which, request.key.only_tenant)
    which = of_key(which, request.key)
    return _counted(request, which) if body.confirm is None else _confirmed(request, body, body.confirm, which)


def _counted(request: ActionRequest, which: Filter) -> Response:
    app_state = request.app_state
    count = count_jobs(app_state.database, which, "state", exact=True).total
    page = queries.list_jobs(app_state.database, which, after=None, limit=SAMPLE_JOBS)
    return json_response(BulkCount(count=count, filter=which.query(), sample=job_views(app_state, page.rows, {})))


def _confirmed(request: ActionRequest, body: BulkBody, count: int, which: Filter) -> Response:
    database = request.app_state.database
    [row] = run_idempotent(database, lambda tx: tx.execute("SELECT now() AS now").fetchall())
    which = bulk.fixed(which, row["now"])
    total = count_jobs(database, which, "state", exact=True).total
    if total != count:
        advice = "Do the dry run again, and confirm its count if it is as it should be."
        message = f"{total} jobs match, and {count} were confirmed"
        raise Conflict(message, code="count_changed", advice=advice, extra={"count": total})
    confirmed = Confirmed(body.action, which, body.options, total)
    # Not sent again if its response is lost: that would be a second action, on the jobs that match then.
    with database.transaction() as tx:
        begun = bulk.begin(tx, confirmed, request.acting(body.reason))
    return json_response(bulk_view(begun), 202)


@router.get("", response_model=BulkList, responses=problem_responses(401, 403, 503))
def list_bulk_actions(key: Reader, app_state: AppStateDep, query: PageQuery) -> Response:
    """List actions on all jobs of a filter, newest first. Needs the scope `read`; `admin` for other tenants' ones."""
    after, limit = decode_job_cursor(query.cursor), query.limit
    found = run_idempotent(
        app_state.database, lambda tx: bulk.list_actions(tx, key.only_tenant, after=after, limit=limit + 1)
    )
    items = [bulk_view(row) for row in found[:limit]]
    return json_response(BulkList(items=items, next_cursor=encode_cursor(items[-1].id) if len(found) > limit else None))


@router.get("/{action_id:uuid}", response_model=BulkView, responses=problem_responses(401, 403, 404, 503))
def show_bulk_action(action_id: UUID, key: Reader, app_state: AppStateDep) -> Response:
    """Show how far an action on all jobs of a filter is, and what was refused. Needs the scope `read`."""
    row = run_idempotent(app_state.database, lambda tx: bulk.find(tx, action_id, key.only_tenant))
    return json_response(bulk_view(row))


@router.post(
    "/{action_id:uuid}/stop",
    response_model=BulkView,
    responses=problem_responses(401, 403, 404, 413, 415, 503),
    openapi_extra=body_of("ActionBody"),
)
def stop_bulk_action(action_id: UUID, request: ActionDep) -> Response:
    """Take no more jobs; what is done stays done. Needs the scope `operate`."""
    acting = request.acting(request.parse(ActionBody).reason)

    def stop(connection: Connection) -> BulkAction:
        with connection.transaction():
            return bulk.stop(connection, action_id, acting)

    return json_response(bulk_view(run_idempotent(request.app_state.database, stop)))
