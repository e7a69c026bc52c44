"""The audit: who did what."""

from fastapi import APIRouter
from starlette.responses import Response

from api.auth import Reader
from api.problems import problem_responses
from api.schemas.audit import AuditQuery
from api.schemas.pagination import decode_number_cursor, encode_cursor
from api.state import AppStateDep
from api.views.audit import AuditList, audit_view
from api.views.base import json_response
from worker.jobs.audit_pages import list_audit

router = APIRouter(prefix="/v1", tags=["operation"])


@router.get("/audit", response_model=AuditList, responses=problem_responses(401, 403, 503))
def show_audit(key: Reader, app_state: AppStateDep, query: AuditQuery) -> Response:
    """List who did what, newest first. Needs the scope `read`; `admin` for what is not of the tenant's own keys."""
    before = None if query.cursor is None else decode_number_cursor(query.cursor)
    rows, more = list_audit(app_state.database, key.only_tenant, before=before, limit=query.limit)
    items = [audit_view(row) for row in rows]
    return json_response(AuditList(items=items, next_cursor=encode_cursor(items[-1].id) if more else None))
