"""Limits that operators set while everything runs: how much a store or a tenant has in flight at once."""

from fastapi import APIRouter
from starlette.responses import Response

from api.action_request import ActionDep, ActionRequest, body_of
from api.auth import Reader
from api.key_scope import check_admin, concerns
from api.problems import problem_responses
from api.schemas.holds import HoldName
from api.schemas.limits import LimitBody
from api.state import AppStateDep
from api.views.base import json_response
from api.views.limits import LimitChanged, LimitList, limit_view
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.errors import NotFound
from worker.jobs import caps, holds
from worker.jobs.cap_rows import CapKind

router = APIRouter(prefix="/v1/limits", tags=["operation"])
_REFUSALS = problem_responses(401, 403, 404, 413, 415, 422, 503)
_BODY = body_of("LimitBody", required=True)


@router.put("/stores/{name}", responses=_REFUSALS, openapi_extra=_BODY)
def limit_store(name: HoldName, request: ActionDep) -> LimitChanged:
    """Set how much is in flight to a store at once, or remove that limit. Needs the scope `admin`."""
    check_admin(request.key)
    body = request.parse(LimitBody)
    if body.max_in_flight is not None and name not in request.app_state.settings.profiles.stores:
        raise NotFound(f"there is no store {name!r}", advice="Check the name; the stores file has them all.")
    return _limit(CapKind.STORE, name, body, request)


@router.put("/tenants/{name}", responses=_REFUSALS, openapi_extra=_BODY)
def limit_tenant(name: HoldName, request: ActionDep) -> LimitChanged:
    """Set how much a tenant has in flight at once, over all stores, or remove that limit. Needs the scope `admin`."""
    check_admin(request.key)
    body = request.parse(LimitBody)
    database = request.app_state.database
    if body.max_in_flight is not None and not run_idempotent(database, lambda tx: holds.is_tenant(tx, name)):
        raise NotFound(f"there is no tenant {name!r}", advice="Check the name; `sliceway keys list` has the tenants.")
    return _limit(CapKind.TENANT, name, body, request)


@router.get("", response_model=LimitList, responses=problem_responses(401, 403, 503))
def list_limits(key: Reader, app_state: AppStateDep) -> Response:
    """List the limits that operators have set, as far as the key's jobs may wait for them. Needs `read`."""
    found = run_idempotent(app_state.database, caps.list_caps)
    seen = [each for each in found if concerns(each.kind, each.name, key, app_state)]
    return json_response(LimitList(items=[limit_view(each) for each in seen]))


def _limit(kind: CapKind, name: str, body: LimitBody, request: ActionRequest) -> LimitChanged:
    acting = request.acting(body.reason)

    def set_cap(connection: Connection) -> bool:
        with connection.transaction():
            return caps.set_cap(connection, kind, name, body.max_in_flight, acting)

    changed = run_idempotent(request.app_state.database, set_cap)
    return LimitChanged(kind=kind, name=name, max_in_flight=body.max_in_flight, changed=changed)
