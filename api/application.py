"""The application: its routes, its state and its OpenAPI document.

`create_app` of `api/app.py` imports this module after those of `SLICEWAY_IMPORT`, which may replace FastAPI's class.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api import auth, exception_handlers, problems
from api.enqueue_batcher import EnqueueBatcher
from api.routes import actions, audit, bulk, counts, events, health, holds, jobs, limits, not_implemented, slices, why
from api.schemas.actions import ActionBody, PriorityBody, RetryBody
from api.schemas.bulk import BulkBody
from api.schemas.jobs import BatchItem, BatchRequest, JobRequest
from api.schemas.limits import LimitBody
from api.server.body_limits import BodyLimits
from api.state import AppState
from api.stores_watch import StoresWatch
from api.waiters import Waiters
from worker.db.pool import Database
from worker.jobs.admission import Admission
from worker.jobs.api_keys import KeyRing
from worker.jobs.quota import Quota
from worker.jobs.statements import texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from worker.config.settings import Settings


class Application(FastAPI):
    """FastAPI with our root path, and the parts of the OpenAPI document that it cannot know."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, whether or not a proxy has removed our root path from it."""
        if (root := self.state.sliceway.root) and scope["type"] == "http":
            scope["root_path"] = root
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the bodies that the routes parse themselves and the problem documents."""
        if self.openapi_schema is None:
            bodies = (JobRequest, BatchRequest, BatchItem, ActionBody, RetryBody, PriorityBody, LimitBody, BulkBody)
            models = [(model, "validation") for model in (*bodies, problems.Problem)]
            _, ours = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            schema = super().openapi()
            schema["components"]["schemas"].update(ours["$defs"])
            schema["components"]["securitySchemes"] = auth.SCHEME
            for path, methods in schema["paths"].items():
                if path.startswith("/v1/"):
                    methods.update({method: {**route, "security": [{"key": []}]} for method, route in methods.items()})
        return super().openapi()


def application(settings: Settings) -> FastAPI:
    """Return the application; it connects to nothing yet.

    Raises:
        SettingsError: the stores file is wrong.
    """
    app = Application(
        title="Sliceway",
        version="1",
        summary="A durable upload job queue.",
        description="Put this file into that bucket: a job that was accepted is kept until it has ended.",
        lifespan=_lifespan,
        docs_url=None,  # its page loads scripts from another site
        redoc_url=None,
        redirect_slashes=False,  # most clients lose the body and the key in a redirect: 404 is clearer
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    database = Database(
        settings.database_url,
        pool_size=settings.api_threads + 1,
        pooled=settings.database_direct_url is not None,
        application="sliceway api",
        keep=texts(),
    )
    quota = Quota(settings.max_live_jobs)
    app.state.sliceway = AppState(
        settings=settings,
        database=database,
        keys=KeyRing(database),
        admission=Admission(settings),
        quota=quota,
        enqueue_batcher=EnqueueBatcher(database, quota),
        waiters=Waiters(database),
        stores=StoresWatch(settings, database),
        large_bodies=anyio.CapacityLimiter(1),
    )
    for routes in (jobs, counts, bulk, actions, holds, limits, audit, slices, events, why, health, not_implemented):
        app.include_router(routes.router)
    exception_handlers.install(app)
    app.add_middleware(BodyLimits, limits=settings)  # the outermost
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app_state: AppState = app.state.sliceway
    anyio.to_thread.current_default_thread_limiter().total_tokens = app_state.settings.api_threads
    app_state.stores.start()
    yield
    app_state.waiters.stop()
    app_state.stores.end()
    app_state.database.close()
