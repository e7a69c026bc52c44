"""A COS JSON store of canned answers, for a driver that need not know: what it sends is kept, what it hears is told."""

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
    """A guard that lets everything pass, or stops at the n-th question."""

    stop_at: int | None = None
    left_s: float = 60.0
    asked: int = 0

    def check(self) -> None:
        self.asked += 1
        if self.asked == self.stop_at:
            raise Interrupted(Stop.CANCELLED)

    def remaining_s(self) -> float:
        return self.left_s


@dataclass
class Sent:
    """A request as the store would see it."""

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
    """Answers from a queue (the last one for ever) and keeps what was asked."""

    answers: deque[httpx.Response | Exception] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)

    secrets: tuple[str, str] = ("AKIDfakesecretid", "fake-secret-key")
    mark: str = "sliceway/0190a-b/3"

    def driver(self, **changes: Any) -> CosJsonStore:
        """Return a driver that speaks to this store, its profile changed."""
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
        """Return the wish to bring seven bytes to `a/k`, changed."""
        values: dict[str, Any] = {
            "key": "a/k",
            "size_bytes": 7,
            "overwrite": False,
            "attributes": None,
            "mark": self.mark,
        }
        return Intent(**{**values, **changes})

    def guard(self, **how: Any) -> Guard:
        """Return a guard that lets everything pass, unless told otherwise."""
        return Guard(**how)

    def will(self, *answers: httpx.Response | Exception) -> None:
        """Answer so, one after the other, and with the last one for ever."""
        self.answers.extend(answers)

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
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


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
    """A store that was told nothing yet."""
    return Store()


@pytest.fixture
def driver(store: Store) -> Iterator[CosJsonStore]:
    """A driver that speaks to it."""
    driver = store.driver()
    yield driver
    driver.close()
