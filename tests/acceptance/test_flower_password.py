"""All that Flower serves is behind its password, but /healthcheck and the static files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from flower.urls import handlers

from tests.support.deadline import DEADLINE_S
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

USER, PASSWORD = "sliceway", "fake,secret-flower"
OPEN = {"/healthcheck", "/static/x"}
#: Each page of this version, with something in the place of what a pattern leaves open.
PAGES = sorted(
    {
        str((getattr(entry, "regex", None) and entry.regex.pattern) or entry[0]).rstrip("$").replace("/?", "")
        .replace("(.+)", "x").replace("(.*)", "x").replace(".*", "/nowhere")
        for entry in handlers
    }
)  # fmt: skip


@pytest.fixture(params=["", "/flower"], ids=["at the root", "below a path"])
def url(site: Installation, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Flower that was started as an operator starts it, in a Pod beside a Service of its name."""
    port = free_port()
    # FLOWER_BASIC_AUTH would be split at the comma
    auth = {"SLICEWAY_FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}", "FLOWER_BASIC_AUTH": "a:b"}
    environ = site.environ | auth | {"SLICEWAY_FLOWER_PORT": str(port), "FLOWER_UNAUTHENTICATED_API": "true"}
    environ |= {"SLICEWAY_FLOWER_ROOT_PATH": request.param, "FLOWER_PORT": "tcp://10.0.0.1:5555"}
    log = site.folder / "flower-password.log"
    child = Child([sys.executable, "-c", "from worker.cli.main import main; main()", "flower"], log=log, env=environ)
    url = f"http://127.0.0.1:{port}{request.param}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthcheck", trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    assert wait_until(answers, timeout_s=DEADLINE_S, poll_s=0.1, alive=lambda: child.poll() is None), log.read_text()
    yield url
    child.stop()


def test_no_page_without_the_password_but_two(url: str) -> None:
    assert {"/metrics", "/api/workers", "/login", "/nowhere", *OPEN} <= set(PAGES)
    wrong = [None, ("a", "b"), (USER, "fake"), (USER, ""), ("secret-flower", ""), (USER, PASSWORD + "x")]
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for page in PAGES:
            for auth in wrong:
                for method in ("GET", "POST", "OPTIONS", "HEAD"):
                    status = client.request(method, page, auth=auth).status_code
                    assert (page in OPEN) == (status != httpx.codes.UNAUTHORIZED), (method, page, auth, status)
        metrics = client.get("/metrics", auth=(USER, PASSWORD))
        assert (metrics.status_code, "python_info" in metrics.text) == (200, True)
        assert client.get("/workers", auth=(USER, PASSWORD)).status_code == httpx.codes.OK
        assert client.get("/healthcheck").text == "OK"
