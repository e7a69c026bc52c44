"""Flower, behind its password as a whole: `python -m worker.flower`.

Flower lets some of its pages pass without one, `/metrics` with the names of workers and tasks among them. Here each
handler asks first, those of a later version too, but for those that `OPEN` names.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import os
import sys
from typing import Any

from celery.__main__ import main as celery_main
from flower.urls import handlers
from flower.views.auth import LoginHandler
from flower.views.monitor import Healthcheck
from tornado.options import options
from tornado.routing import URLSpec
from tornado.web import HTTPError, StaticFileHandler

from worker.settings import load_settings

OPEN = (Healthcheck, StaticFileHandler)
"""What anybody may see: that it runs, for whoever watches its health; style sheets and scripts, the same everywhere."""


def main() -> None:
    """Serve Flower as the settings have it; `sliceway flower` has seen to it that there is a password."""
    settings = load_settings()
    assert settings.flower_basic_auth is not None
    # not by FLOWER_BASIC_AUTH: a comma in a password would make two of it, the second of them enough to get in
    os.environ.pop("FLOWER_BASIC_AUTH", None)
    options.basic_auth = [settings.flower_basic_auth.get_secret_value()]
    handlers[:] = [guarded for entry in handlers if (guarded := _guarded(entry)) is not None]
    serve = [f"--address={settings.flower_host}", f"--port={settings.flower_port}"]
    sys.argv = ["celery", "-A", "worker", "flower", *serve]
    celery_main()


def _guarded(entry: Any) -> URLSpec | None:
    given = entry if isinstance(entry, URLSpec) else URLSpec(*entry)
    if issubclass(given.handler_class, LoginHandler):
        return None  # of OAuth; without it no handler at all comes of the class
    if issubclass(given.handler_class, OPEN):
        return given
    return URLSpec(given.regex.pattern, _asking(given.handler_class), given.kwargs, given.name)


def _asking(handler: Any) -> Any:
    class Asking(handler):  # type: ignore[misc]
        """The handler, asking for the password before anything else."""

        def prepare(self) -> Any:
            """Refuse whoever gives none, or a wrong one."""
            if not self.current_user:
                raise HTTPError(401)
            return super().prepare()

    Asking.__name__ = handler.__name__
    return Asking


if __name__ == "__main__":
    main()
