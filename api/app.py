"""The application (`create_app`), and the server that runs it (`server`)."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api import auth, exception_handlers, problems
from api.enqueue_batcher import EnqueueBatcher
from api.routes import actions, events, health, jobs, not_implemented, slices
from api.schemas.jobs import BatchItem, BatchRequest, JobRequest
from api.server.body_limits import BodyLimits
from api.server.http_protocol import protocol_for
from api.server.uvicorn_server import Server
from api.state import AppState
from api.waiters import Waiters
from worker.config.settings import load_settings
from worker.db.pool import Database
from worker.errors import SlicewayError
from worker.jobs.admission import Admission
from worker.jobs.api_keys import KeyRing
from worker.jobs.quota import Quota
from worker.jobs.statements import texts
from worker.telemetry.log import set_up
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from worker.config.settings import Settings

_GRACE_S = 10


class _Application(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, whether or not a proxy has removed our root path from it."""
        if (root := self.state.sliceway.root) and scope["type"] == "http":
            scope["root_path"] = root
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the bodies that the routes parse themselves and the problem documents."""
        if self.openapi_schema is None:
            models = [(model, "validation") for model in (JobRequest, BatchRequest, BatchItem, problems.Problem)]
            _, ours = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            schema = super().openapi()
            schema["components"]["schemas"].update(ours["$defs"])
            schema["components"]["securitySchemes"] = auth.SCHEME
            for path, methods in schema["paths"].items():
                if path.startswith("/v1/"):
                    methods.update({method: {**route, "security": [{"key": []}]} for method, route in methods.items()})
        return super().openapi()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it connects to nothing yet.

    Args:
        settings: None, for other servers (`uvicorn --factory api.app:create_app`): load them from the environment, and
            set up the log. If they are wrong, the process exits with one line.

    Raises:
        SettingsError: the stores file is wrong.
    """
    if settings is None:
        try:
            settings = load_settings()
            set_up(settings.log_format, settings.log_level)
            return create_app(settings)
        except SlicewayError as error:
            sys.exit(redact(f"sliceway: {error.message}. {error.advice}"))
    app = _Application(
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
        large_bodies=anyio.CapacityLimiter(1),
    )
    for routes in (jobs, actions, slices, events, health, not_implemented):
        app.include_router(routes.router)
    exception_handlers.install(app)
    app.add_middleware(BodyLimits, limits=settings)  # the outermost
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app_state: AppState = app.state.sliceway
    anyio.to_thread.current_default_thread_limiter().total_tokens = app_state.settings.api_threads
    yield
    app_state.waiters.stop()
    app_state.database.close()


def server(settings: Settings) -> Server:
    """Return the API's server; its `run` serves until SIGTERM or SIGINT."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http=protocol_for(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return Server(config, app.state.sliceway)
