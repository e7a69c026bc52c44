"""The workers of plain Celery, beside whatever else is up."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench_environment import HERE

from tests.support.store import APPID, BUCKET, SECRET_ID, SECRET_KEY
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench_environment import BenchEnvironment

_SOLO = ("-P", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat")


def plain_environ(site: BenchEnvironment) -> dict[str, str]:
    """What the modules of plain Celery read: the store, and databases of the broker that are theirs alone."""
    given = {"store": site.store_url, "appid": APPID, "bucket": BUCKET, "id": SECRET_ID, "key": SECRET_KEY}
    broker = site.running.settings.broker_url.for_kombu().rsplit("/", 1)[0]
    return {f"PLAIN_{name.upper()}": value for name, value in given.items()} | {
        "PLAIN_BROKER": f"{broker}/1", "PLAIN_BARE_BROKER": f"{broker}/3", "PYTHONPATH": str(HERE)
    }  # fmt: skip


@contextmanager
def plain_worker(site: BenchEnvironment) -> Iterator[None]:
    """A worker of plain Celery, four processes."""
    with _worker(site, "plain", "plain_celery", "-P", "prefork", "-c", "4"):
        yield


@contextmanager
def bare_workers(site: BenchEnvironment) -> Iterator[None]:
    """Two workers that have no children, and do nothing beside their tasks."""
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(_worker(site, f"bare{number}", "bare_celery", *_SOLO))
        yield


@contextmanager
def _worker(site: BenchEnvironment, name: str, module: str, *options: str) -> Iterator[None]:
    log = site.folder / f"{name}.log"
    command = [sys.executable, "-m", "celery", "-A", module, "worker", "-n", f"{name}@%h", "-l", "info", *options]
    worker = Child(command, log=log, env=dict(os.environ) | plain_environ(site))
    try:
        assert wait_until(lambda: log.exists() and "ready" in log.read_text(), timeout_s=60), log.read_text()
        yield
    finally:
        worker.stop()
