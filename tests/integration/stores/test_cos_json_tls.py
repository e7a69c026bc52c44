"""A driver verifies TLS with the system's authorities or the profile's; a failure is the profile's fault."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.certificate import Authority
from worker.errors import StoreUnusable, Transient
from worker.stores.registry import open_store
from worker.urls import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.config.profiles import StoreProfile


class EmptyStore(BaseHTTPRequestHandler):
    """Responds as a COS JSON store without objects."""

    def do_GET(self) -> None:
        body = b'{"code": -197, "message": "ERROR_FILE_NOT_EXIST"}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return Authority(tmp_path).identity("localhost")


@pytest.fixture
def port(identity: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyStore) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def check(profile: StoreProfile, **changes: object) -> None:
    driver = open_store(profile.model_copy(update=changes))
    try:
        driver.check()
    finally:
        driver.close()


def test_a_certificate_of_the_profiles_own_authority_is_trusted(
    store_profile: StoreProfile, identity: Path, port: int
) -> None:
    check(store_profile, endpoint=Endpoint.of(f"https://localhost:{port}"), ca_file=identity)


def test_a_certificate_without_a_known_authority_is_the_profiles_fault(store_profile: StoreProfile, port: int) -> None:
    with pytest.raises(StoreUnusable, match="CERTIFICATE_VERIFY_FAILED") as caught:
        check(store_profile, endpoint=Endpoint.of(f"https://localhost:{port}"))
    assert "ca_file" in caught.value.advice


def test_a_certificate_for_another_name_is_the_profiles_fault(
    store_profile: StoreProfile, identity: Path, port: int
) -> None:
    with pytest.raises(StoreUnusable, match="CERTIFICATE_VERIFY_FAILED"):
        check(store_profile, endpoint=Endpoint.of(f"https://127.0.0.1:{port}"), ca_file=identity)


def test_the_wrong_scheme_is_transient(store_profile: StoreProfile, port: int) -> None:
    with pytest.raises(Transient):
        check(store_profile, endpoint=Endpoint.of(f"http://localhost:{port}"))
