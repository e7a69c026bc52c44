"""Holds: nothing new is dispatched to a store, of a tenant, or at all."""

from fastapi import APIRouter
from starlette.responses import Response

from api.action_request import ActionDep, ActionRequest, body_of
from api.auth import Reader
from api.key_scope import check_admin, concerns
from api.problems import problem_responses
from api.schemas.actions import ActionBody
from api.schemas.holds import HoldName
from api.state import AppStateDep
from api.views.base import json_response
from api.views.holds import HoldChanged, HoldList, hold_view
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.errors import Forbidden, NotFound
from worker.jobs import holds
from worker.jobs.api_keys import ApiKey
from worker.jobs.hold_rows import HoldKind

router = APIRouter(prefix="/v1", tags=["operation"])
_REFUSALS = problem_responses(401, 403, 404, 413, 415, 503)
_BODY = body_of("ActionBody")


@router.post("/stores/{name}/pause", responses=_REFUSALS, openapi_extra=_BODY)
def pause_store(name: HoldName, request: ActionDep) -> HoldChanged:
    """Dispatch nothing new to a store; what is in flight ends. Needs the scope `admin`."""
    check_admin(request.key)
    if name not in request.app_state.settings.profiles.stores:
        raise NotFound(f"there is no store {name!r}", advice="Check the name; the stores file has them all.")
    return _pause(HoldKind.STORE, name, request)


@router.post("/stores/{name}/resume", responses=_REFUSALS, openapi_extra=_BODY)
def resume_store(name: HoldName, request: ActionDep) -> HoldChanged:
    """Dispatch to a store again. Needs the scope `admin`."""
    check_admin(request.key)
    return _resume(HoldKind.STORE, name, request)


@router.post("/tenants/{name}/pause", responses=_REFUSALS, openapi_extra=_BODY)
def pause_tenant(name: HoldName, request: ActionDep) -> HoldChanged:
    """Dispatch nothing new of a tenant; what is in flight ends. Needs `operate`, for another tenant `admin`."""
    _check_tenant(request.key, name)
    if not run_idempotent(request.app_state.database, lambda tx: holds.is_tenant(tx, name)):
        raise NotFound(f"there is no tenant {name!r}", advice="Check the name; `sliceway keys list` has the tenants.")
    return _pause(HoldKind.TENANT, name, request)


@router.post("/tenants/{name}/resume", responses=_REFUSALS, openapi_extra=_BODY)
def resume_tenant(name: HoldName, request: ActionDep) -> HoldChanged:
    """Dispatch a tenant's jobs again. Needs the scope `operate`, for another tenant `admin`."""
    _check_tenant(request.key, name)
    return _resume(HoldKind.TENANT, name, request)


@router.post("/queue/pause", responses=_REFUSALS, openapi_extra=_BODY)
def pause_queue(request: ActionDep) -> HoldChanged:
    """Dispatch nothing new at all; jobs are accepted, and what is in flight ends. Needs the scope `admin`."""
    check_admin(request.key)
    return _pause(HoldKind.QUEUE, "", request)


@router.post("/queue/resume", responses=_REFUSALS, openapi_extra=_BODY)
def resume_queue(request: ActionDep) -> HoldChanged:
    """Dispatch again. Needs the scope `admin`."""
    check_admin(request.key)
    return _resume(HoldKind.QUEUE, "", request)


@router.get("/holds", response_model=HoldList, responses=problem_responses(401, 403, 503))
def list_holds(key: Reader, app_state: AppStateDep) -> Response:
    """List what is held: the queue, stores and tenants, as far as the key's jobs may wait for it. Needs `read`."""
    found = run_idempotent(app_state.database, holds.list_holds)
    return json_response(
        HoldList(items=[hold_view(hold) for hold in found if concerns(hold.kind, hold.name, key, app_state)])
    )


def _check_tenant(key: ApiKey, name: str) -> None:
    if not key.sees(name):
        raise Forbidden("the key lacks the scope admin for another tenant", advice="Use a key with the scope admin.")


def _pause(kind: HoldKind, name: str, request: ActionRequest) -> HoldChanged:
    acting = request.acting(request.parse(ActionBody).reason)

    def pause(connection: Connection) -> bool:
        with connection.transaction():
            return holds.pause(connection, kind, name, acting)

    changed = run_idempotent(request.app_state.database, pause)
    return HoldChanged(kind=kind, name=name, paused=True, changed=changed)


def _resume(kind: HoldKind, name: str, request: ActionRequest) -> HoldChanged:
    acting = request.acting(request.parse(ActionBody).reason)

    def resume(connection: Connection) -> bool:
        with connection.transaction():
            return holds.resume(connection, kind, name, acting)

    changed = run_idempotent(request.app_state.database, resume)
    return HoldChanged(kind=kind, name=name, paused=False, changed=changed)
