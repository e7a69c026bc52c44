"""A COS JSON store with canned responses behind an `httpx.MockTransport`; it records the driver's requests."""

from __future__ import annotations

import base64
import json
from collections import deque
from dataclasses import dataclass, field
from email import policy
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from worker.config.profiles import StoreProfile
from worker.errors import Interrupted, Stop
from worker.stores.base import Intent
from worker.stores.cos_json.driver import CosJsonStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Guard:
    """A guard that stops at the n-th check, or never."""

    stop_at: int | None = None
    left_s: float = 60.0
    checks: int = 0

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stop_at:
            raise Interrupted(Stop.CANCELLED)

    def remaining_s(self) -> float:
        return self.left_s


@dataclass
class Sent:
    """A request as the store sees it."""

    method: str
    path: str
    headers: httpx.Headers
    fields: list[tuple[str, bytes]]
    plain: dict[str, str]
    timeouts: dict[str, float]

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name].decode()


@dataclass
class Store:
    """Returns the queued responses in turn, the last one for ever, and records the requests."""

    responses: deque[httpx.Response | Exception] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)
    secrets: tuple[str, str] = ("AKIDfakesecretid", "fake-secret-key")
    mark: str = "sliceway/0190a-b/3"

    def driver(self, **changes: Any) -> CosJsonStore:
        """Return a driver of this store, with changes to its profile."""
        values: dict[str, Any] = {
            "name": "main",
            "protocol": "cos-json",
            "endpoint": "http://store.test",
            "appid": "10055004",
            "bucket": "accesslog",
            "secret_id": SecretStr(self.secrets[0]),
            "secret_key": SecretStr(self.secrets[1]),
        }
        return CosJsonStore(StoreProfile(**{**values, **changes}), httpx.MockTransport(self.handle))

    def intent(self, **changes: Any) -> Intent:
        """Return the intent to create `a/k` of seven bytes, with changes."""
        values: dict[str, Any] = {
            "key": "a/k",
            "size_bytes": 7,
            "overwrite": False,
            "attributes": None,
            "mark": self.mark,
        }
        return Intent(**{**values, **changes})

    def guard(self, **fields: Any) -> Guard:
        """Return a guard; without arguments it never stops."""
        return Guard(**fields)

    def returns(self, *responses: httpx.Response | Exception) -> None:
        """Queue these responses; the last one is returned for ever."""
        self.responses.extend(responses)

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = b"".join(request.stream)  # type: ignore[arg-type]
        assert len(body) == int(request.headers.get("content-length", 0))
        self.sent.append(
            Sent(
                request.method,
                request.url.raw_path.decode(),
                request.headers,
                _parts(request.headers.get("content-type", ""), body),
                _plain(request.headers["authorization"]),
                dict(request.extensions["timeout"]),
            )
        )
        response = self.responses.popleft() if len(self.responses) > 1 else self.responses[0]
        if isinstance(response, Exception):
            raise response
        return response


def _parts(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    if not content_type.startswith("multipart/"):
        return [(name, str(value).encode()) for name, value in (json.loads(body) if body else {}).items()]
    message = BytesParser(policy=policy.HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    return [
        (str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True) or b"")
        for part in message.iter_parts()
    ]


def _plain(authorization: str) -> dict[str, str]:
    text = base64.b64decode(authorization, validate=True)[20:].decode()
    return dict(pair.split("=", 1) for pair in text.split("&"))


@pytest.fixture
def store() -> Store:
    """A store without queued responses."""
    return Store()


@pytest.fixture
def driver(store: Store) -> Iterator[CosJsonStore]:
    """A driver of this store."""
    driver = store.driver()
    yield driver
    driver.close()
