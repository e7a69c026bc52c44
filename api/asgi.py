"""The application for another HTTP server than that of `sliceway api`, made from the environment.

uvicorn --factory api.asgi:create --http api.http_protocol:LimitedProtocol --backlog 128
hypercorn "api.asgi:create()"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.app import create_app
from worker.log import set_up
from worker.settings import load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def create() -> FastAPI:
    """Return the application.

    Raises:
        SettingsError: a setting or the stores file is wrong.
    """
    settings = load_settings()
    set_up(settings.log_format, settings.log_level)
    return create_app(settings)
