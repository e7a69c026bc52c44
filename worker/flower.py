"""Flower with a password for every page: `python -m worker.flower`.

Flower itself serves some pages without a password, among them `/metrics` with the names of workers and tasks. Here
each handler asks for it, those of later versions included, except the handlers in `OPEN`.

The queue lengths come over a connection like that of the workers. Flower's own code ignores the number of the database
behind a Unix socket, knows only one of several sentinels, and needs the management plugin of RabbitMQ.

Written for Flower 2.2 (its handlers and their `prepare`) and kombu 5.7 (`Channel._size`).
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from celery.__main__ import main as celery_main
from flower.urls import handlers
from flower.views.auth import LoginHandler
from flower.views.monitor import Healthcheck
from kombu.exceptions import ChannelError
from tornado.options import options
from tornado.routing import URLSpec
from tornado.web import HTTPError, StaticFileHandler

from worker.config.imports import import_modules_or_exit
from worker.config.settings import load_settings
from worker.signals import run_on_after_hangup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery
    from kombu.connection import Connection

COLUMNS = "name,args,state,received,started,runtime,worker,uuid"
"""Columns of the list of tasks; `args` has job, target and range. FLOWER_TASKS_COLUMNS names others."""
OPEN = (Healthcheck, StaticFileHandler)
"""Handlers without a password: the health check, style sheets and scripts. They show nothing of an installation."""


def main() -> None:
    """Serve Flower by the settings. `sliceway flower` has checked that there is a password."""
    settings = load_settings()
    import_modules_or_exit(settings.import_)
    assert settings.flower_basic_auth is not None
    # not by FLOWER_BASIC_AUTH: Flower splits it at a comma in the password, and would accept the second part alone
    os.environ.pop("FLOWER_BASIC_AUTH", None)
    options.basic_auth = [settings.flower_basic_auth.get_secret_value()]
    handlers[:] = [guarded for entry in handlers if (guarded := _guarded(entry)) is not None]
    serve = [f"--address={settings.flower_host}", f"--port={settings.flower_port}"]
    options.tasks_columns = COLUMNS
    run_on_after_hangup()
    if settings.flower_root_path:
        serve.append(f"--url_prefix={settings.flower_root_path}")
    sys.argv = ["celery", "-A", "worker", "flower", *serve]
    celery_main()


def _guarded(entry: Any) -> URLSpec | None:
    given = entry if isinstance(entry, URLSpec) else URLSpec(*entry)
    if issubclass(given.handler_class, LoginHandler):
        return None  # only OAuth needs it, and without OAuth Flower cannot create it
    if issubclass(given.handler_class, OPEN):
        return given
    return URLSpec(given.regex.pattern, _with_password(given.handler_class), given.kwargs, given.name)


def _with_password(handler: Any) -> Any:
    class WithPassword(handler):  # type: ignore[misc]
        """The handler behind the password."""

        def prepare(self) -> Any:
            """Refuse a request without the password."""
            if not self.current_user:
                raise HTTPError(401)
            return super().prepare()

        def get_broker(self) -> Any:
            """Return the source of queue lengths: RabbitMQ's management API only if FLOWER_BROKER_API names it."""
            return super().get_broker() if options.broker_api else Queues(self.capp)

    WithPassword.__name__ = handler.__name__
    return WithPassword


class Queues:
    """The lengths of the queues, over a connection like that of the workers."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return Flower's row for each queue. A queue that does not exist has no messages."""
        return await asyncio.get_running_loop().run_in_executor(None, self._counted, list(names))

    def _counted(self, names: list[str]) -> list[dict[str, Any]]:
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1)
            return [{"name": name} | _counts(connection, name) for name in names]


def _counts(connection: Connection, queue: str) -> dict[str, int]:
    with connection.channel() as channel:
        if connection.transport.driver_type == "redis":  # the Redis user of docs/operating.md may run this
            return {"messages": channel._size(queue)}  # noqa: SLF001
        try:
            found = channel.queue_declare(queue, passive=True)
        except (ChannelError, *connection.channel_errors):
            return {"messages": 0}
    return {"messages": found.message_count, "messages_ready": found.message_count, "consumers": found.consumer_count}


if __name__ == "__main__":
    main()
