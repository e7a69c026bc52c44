"""Behind a proxy that publishes the API below a path, its clients can use the URLs that it returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.api.conftest import STORES
from tests.integration.api.job_requests import job_body
from worker.local.ports import free_port
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOT = "/sliceway"


def paths(document: dict[str, Any]) -> set[str]:
    return {path.removesuffix(f"/{name}") for name, path in document["urls"].items()}


@pytest.fixture
def client(make_api: Callable[..., Any], database_url: str) -> httpx.Client:
    made: httpx.Client = make_api(database_url, SLICEWAY_ROOT_PATH=ROOT).client()
    return made


@pytest.mark.parametrize("kept", ["", ROOT], ids=["a proxy that removes it", "a proxy that keeps it"])
def test_urls_begin_with_the_root_path(client: httpx.Client, kept: str) -> None:
    made = client.post(f"{kept}/v1/jobs", json=job_body())
    here = f"{ROOT}/v1/jobs/{made.json()['id']}"
    assert (made.status_code, made.headers["location"], paths(made.json())) == (202, here, {here})
    [listed] = client.get(f"{kept}/v1/jobs").json()["items"]
    job = client.get(f"{kept}/v1/jobs/{made.json()['id']}").json()
    assert paths(listed) == paths(job) == {here}
    [result] = client.post(f"{kept}/v1/jobs/batch", json={"jobs": [job_body("b")]}).json()["results"]
    assert paths(result["job"]) == {f"{ROOT}/v1/jobs/{result['job']['id']}"}
    assert client.get(here).status_code == 200


@pytest.mark.parametrize("kept", ["", ROOT])
def test_a_refusal_names_the_path_that_the_client_requested(client: httpx.Client, kept: str) -> None:
    nothing = client.get(f"{kept}/v1/nothing").json()
    assert (nothing["instance"], f"{ROOT}/v1/nothing" in nothing["detail"]) == (f"{ROOT}/v1/nothing", True)
    assert client.post(f"{kept}/v1/jobs", json={}).json()["instance"] == f"{ROOT}/v1/jobs"
    assert client.get(f"{ROOT}way/v1/jobs").status_code == 404


def test_the_openapi_document_has_the_root_path(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["servers"] == [{"url": ROOT}]


def test_another_server_creates_the_application_from_the_environment(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "stores.toml").write_text(STORES)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")} | {
        "SLICEWAY_DATABASE_URL": database_url,
        "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0",
        "SLICEWAY_STORES_FILE": str(tmp_path / "stores.toml"),
        "SLICEWAY_ROOT_PATH": ROOT,
    }
    port = free_port()
    options = ["--factory", "api.app:create_app", "--workers", "2", "--port", str(port)]
    options += ["--http", "api.server.http_protocol:LimitedProtocol", "--ws", "none"]  # as docs/operating.md says
    served = subprocess.Popen([sys.executable, "-m", "uvicorn", *options], env=environ)

    def is_ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}{ROOT}/readyz", trust_env=False, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    try:
        assert wait_until(is_ready, timeout_s=240, poll_s=0.1, alive=lambda: served.poll() is None)
    finally:
        served.send_signal(signal.SIGTERM)
        assert served.wait(240) == 0


def test_an_error_in_the_environment_is_one_line() -> None:
    program = "from api.app import create_app; create_app()"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("sliceway: SLICEWAY_DATABASE_URL is not set.")
    assert done.stderr.count("\n") == 1
