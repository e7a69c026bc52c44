"""Flower, behind its password as a whole: `python -m worker.flower`.

Flower lets some of its pages pass without one, `/metrics` with the names of workers and tasks among them. Here each
handler asks first, those of a later version too, but for those that `OPEN` names.

The lengths of queues are asked for by the way that the workers take. Flower's own ways know no number of a database
behind a Unix socket, one sentinel of several, and RabbitMQ by the plugin for its management only.

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

from worker.config.settings import load_settings
from worker.signals import run_on_after_hangup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery
    from kombu.connection import Connection

COLUMNS = "name,args,state,received,started,runtime,worker,uuid"
"""Of the list of tasks; `args` is where job, target and range stand. FLOWER_TASKS_COLUMNS names others."""
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
    options.tasks_columns = COLUMNS
    run_on_after_hangup()
    if settings.flower_root_path:
        serve.append(f"--url_prefix={settings.flower_root_path}")
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

        def get_broker(self) -> Any:
            """Return what is asked for the lengths of queues: RabbitMQ's management only where it is named."""
            return super().get_broker() if options.broker_api else Queues(self.capp)

    Asking.__name__ = handler.__name__
    return Asking


class Queues:
    """The queues of a broker, counted over a connection such as the workers have."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return what Flower shows of each queue; one that is not there yet, or no more, holds no messages."""
        return await asyncio.get_running_loop().run_in_executor(None, self._counted, list(names))

    def _counted(self, names: list[str]) -> list[dict[str, Any]]:
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1)
            return [{"name": name} | _counts(connection, name) for name in names]


def _counts(connection: Connection, queue: str) -> dict[str, int]:
    with connection.channel() as channel:
        if connection.transport.driver_type == "redis":  # nothing that its user in the manual may not ask
            return {"messages": channel._size(queue)}  # noqa: SLF001
        try:
            found = channel.queue_declare(queue, passive=True)
        except (ChannelError, *connection.channel_errors):
            return {"messages": 0}
    return {"messages": found.message_count, "messages_ready": found.message_count, "consumers": found.consumer_count}


if __name__ == "__main__":
    main()
