"""What Celery takes for a task that does nothing, at its best: two solo workers, no results, no events.

The tasks are all there before the workers see the first one, so that their sending is not measured.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import redis
from celery import Celery
from timed import timed

from worker.local.process import wait_until

HELD, QUEUE = "bare.held", "bare"
broker = os.environ.get("PLAIN_BARE_BROKER")
app = Celery("bare", broker=broker)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, worker_send_task_events=False)
for name in ("celery.worker.strategy", "celery.app.trace"):  # two lines a task
    logging.getLogger(name).setLevel(logging.WARNING)


@app.task(name="bare.nothing")
def nothing() -> None:
    """Do nothing."""


def main() -> None:
    """Have as many tasks done as standard input says, and print the seconds."""
    count = json.load(sys.stdin)["count"]
    assert broker
    with redis.Redis.from_url(broker) as line:
        with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
            for _ in range(count):
                nothing.apply_async(queue=HELD, producer=producer)
        assert line.llen(HELD) == count
        with timed():
            line.rename(HELD, QUEUE)
            assert wait_until(lambda: not line.llen(QUEUE) and not line.hlen("unacked"), timeout_s=600, poll_s=0.01)


if __name__ == "__main__":
    main()
