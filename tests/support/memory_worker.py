"""A worker process on a broker in its own memory, which keeps messages until they are acknowledged, as RabbitMQ does.

It takes what `FORGED` has that such a broker can carry, and ends with code 0 once nothing is left.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from typing import Any

from celery import signals
from celery.worker import state
from kombu.entity import Queue

from tests.support.deadline import DEADLINE_S
from tests.support.forged import FORGED
from worker.config.settings import load_settings
from worker.jobs.task_names import QUEUE
from worker.local.process import wait_until
from worker.runtime import bootsteps


def carried() -> dict[str, dict[str, Any]]:
    """Those that are messages by the rules of such a broker: bytes, a content type and headers."""
    found = {}
    for name, text in FORGED.items():
        try:
            made = json.loads(text)
            body = base64.b64decode(made["body"], validate=True)
            fits = made["properties"]["body_encoding"] == "base64" and isinstance(made["headers"], dict)
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
            continue
        kinds = {"content_type": made["content-type"], "content_encoding": made["content-encoding"]}
        if fits and all(isinstance(kind, str) for kind in kinds.values()):
            found[name] = {"body": body, "headers": made["headers"], **kinds}
    return found


def main() -> None:
    """Run it."""
    from worker import celery as roles  # noqa: PLC0415 - it reads the settings of the process

    app = roles.make_app(load_settings())
    app.steps["worker"].discard(bootsteps.Engine)

    def write_all() -> None:
        with app.connection_for_write() as connection:
            producer = connection.Producer()
            for given in carried().values():
                producer.publish(given.pop("body"), exchange="", routing_key=QUEUE, **given)
            queue = Queue(QUEUE)(connection.default_channel)
            taken = wait_until(lambda: not queue.queue_declare(passive=True).message_count, timeout_s=DEADLINE_S)
        state.should_stop = 0 if taken else 1

    signals.worker_ready.connect(lambda **_: threading.Thread(target=write_all).start(), weak=False)
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency=2", "--loglevel=WARNING"]
    app.worker_main(["worker", *options])


if __name__ == "__main__":
    main()
