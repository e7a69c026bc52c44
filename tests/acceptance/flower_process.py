"""`sliceway flower` as an operator starts it, and its pages as a client with the password sees them."""

from __future__ import annotations

import html
import re
import sys
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.support.deadline import DEADLINE_S
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from tests.support.installation import Installation

PASSWORD = "fake-secret-flower"


class FlowerProcess:
    """A running Flower that has heard of a worker."""

    def __init__(self, site: Installation, **settings: str) -> None:
        """Start it with these settings beside the installation's."""
        port = free_port()
        auth = {"SLICEWAY_FLOWER_BASIC_AUTH": f"operator:{PASSWORD}", "SLICEWAY_FLOWER_PORT": str(port)}
        self.log = site.folder / f"flower-{port}.log"
        command = [sys.executable, "-c", "from worker.cli.main import main; main()", "flower"]
        self._child = Child(command, log=self.log, env=site.environ | auth | settings)
        url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=url, auth=("operator", PASSWORD), trust_env=False, timeout=60)
        assert wait_until(lambda: bool(self.workers()), timeout_s=DEADLINE_S, poll_s=0.1), self.log.read_text()

    def workers(self) -> list[str]:
        """The names of the workers that it shows as living."""
        try:
            answer = self._client.get("/api/workers", params={"status": "true"}).json()
        except (httpx.HTTPError, ValueError):
            return []
        return [name for name, lives in answer.items() if lives]

    def get(self, page: str) -> Any:
        """What it answers as JSON."""
        return self._client.get(page).raise_for_status().json()

    def post(self, page: str, **fields: Any) -> httpx.Response:
        """What it answers to one of its buttons."""
        return self._client.post(page, params=fields)

    def text(self, page: str) -> str:
        """The text of a page."""
        return html.unescape(re.sub(r"<[^>]*>|\s+", " ", self._client.get(page).raise_for_status().text))

    def queue(self) -> Any:
        """What it knows of the one queue."""
        [queue] = self.get("/api/queues/length")["active_queues"]
        return queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._child.stop()
