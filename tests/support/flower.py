"""`sliceway flower` as an operator starts it, and its pages as a client with the password sees them."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.support.deadline import DEADLINE_S
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.installation import Installation

AUTH = ("operator", "fake-secret-flower")


class FlowerProcess:
    """A running Flower that lists a worker, or one that only serves if there is none to list."""

    def __init__(
        self,
        site: Installation,
        settings: Mapping[str, str] | None = None,
        *,
        auth: tuple[str, str] = AUTH,
        lists_workers: bool = True,
    ) -> None:
        """Start it with these settings beside the installation's."""
        port = free_port()
        own = {"SLICEWAY_FLOWER_BASIC_AUTH": ":".join(auth), "SLICEWAY_FLOWER_PORT": str(port)}
        self.log = site.folder / f"flower-{port}.log"
        environ = {**site.environ, **own, **(settings or {})}
        self._child = Child([sys.executable, "-m", "worker.cli", "flower"], log=self.log, env=environ)
        self.pid = self._child.pid
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=auth, trust_env=False, timeout=60)
        ready = self.workers if lists_workers else self._serves
        assert wait_until(lambda: bool(ready()), timeout_s=DEADLINE_S, poll_s=0.1), self.log.read_text()

    def _serves(self) -> bool:
        try:
            return self.client.get("/healthcheck").is_success
        except httpx.HTTPError:
            return False

    def environ(self) -> list[str]:
        """Its environment, a variable an item."""
        return Path(f"/proc/{self.pid}/environ").read_text().split("\0")

    def workers(self) -> list[str]:
        """The names of the workers that it shows as living."""
        try:
            answer = self.client.get("/api/workers", params={"status": "true"}).json()
        except (httpx.HTTPError, ValueError):
            return []
        return [name for name, lives in answer.items() if lives]

    def get(self, page: str) -> Any:
        """What it answers as JSON."""
        return self.client.get(page).raise_for_status().json()

    def post(self, page: str, **fields: Any) -> httpx.Response:
        """What it answers to one of its buttons."""
        return self.client.post(page, params=fields)

    def text(self, page: str) -> str:
        """The text of a page."""
        return html.unescape(re.sub(r"<[^>]*>|\s+", " ", self.client.get(page).raise_for_status().text))

    def queue(self) -> Any:
        """What it knows of the one queue."""
        [queue] = self.get("/api/queues/length")["active_queues"]
        return queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._child.stop()
