"""The application (`create_app`), and the server that runs it (`server`)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvicorn

from api.server.http_protocol import protocol_for
from api.server.uvicorn_server import Server
from worker.config.imports import import_modules
from worker.config.settings import load_settings
from worker.errors import SlicewayError
from worker.telemetry.log import set_up
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from fastapi import FastAPI

    from worker.config.settings import Settings

_GRACE_S = 10


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it connects to nothing yet.

    Args:
        settings: None, for other servers (`uvicorn --factory api.app:create_app`): load them from the environment, and
            set up the log. If they are wrong, the process exits with one line.

    Raises:
        SettingsError: the stores file is wrong, or a module of `SLICEWAY_IMPORT`.
    """
    if settings is None:
        try:
            settings = load_settings()
            set_up(settings.log_format, settings.log_level)
            return create_app(settings)
        except SlicewayError as error:
            sys.exit(redact(f"sliceway: {error.message}. {error.advice}"))
    import_modules(settings.import_)
    from api.application import application  # noqa: PLC0415 - what was imported may instrument FastAPI and Starlette

    return application(settings)


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
