"""The worker of plain Celery, beside whatever else is up."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bed import APPID, BUCKET, HERE, SECRET_ID, SECRET_KEY

from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bed import Bed


def plain_environ(site: Bed) -> dict[str, str]:
    given = {"store": site.store_url, "appid": APPID, "bucket": BUCKET, "id": SECRET_ID, "key": SECRET_KEY}
    broker = site.running.settings.broker_url.rsplit("/", 1)[0] + "/1"
    return {f"PLAIN_{name.upper()}": value for name, value in given.items()} | {
        "PLAIN_BROKER": broker, "PYTHONPATH": str(HERE)
    }  # fmt: skip


@contextmanager
def plain_worker(site: Bed) -> Iterator[None]:
    """A worker of plain Celery, four processes."""
    log = site.folder / "plain.log"
    words = [sys.executable, "-m", "celery", "-A", "plain_celery", "worker", "-P", "prefork", "-c", "4", "-l", "info"]
    worker = Child(words, log=log, env=dict(os.environ) | plain_environ(site))
    try:
        assert wait_until(lambda: log.exists() and "ready" in log.read_text(), timeout_s=60), log.read_text()
        yield
    finally:
        worker.stop()
