"""A client of the COS JSON API that shares no code with the driver, and says exactly what it is told to say."""

from __future__ import annotations

import base64
import hmac
import itertools
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from worker.emulator.config import EmulatorConfig, StoreAccount
from worker.emulator.control import Control
from worker.emulator.server import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KIB = 1024
APPID, BUCKET, SECRET_ID, SECRET_KEY = "10055004", "uploads", "fake-secret-id", "fake-secret-key"


class Cos:
    """Requests as the protocol's pages describe them, each with a signature that fits unless another is given."""

    SLICE = 512 * KIB

    def __init__(self, url: str, control_url: str = "", token_file: str | Path = "") -> None:
        self.url = url
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self.control_url, self.token_file = control_url, Path(token_file)
        self.control = Control(control_url, self.token_file)
        # Loading certificates would take longer than most tests here, and nothing is encrypted.
        self.http = httpx.Client(trust_env=False, timeout=120, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._random = itertools.count(1)

    def path(self, path: str) -> str:
        return f"/files/v2/{APPID}/{BUCKET}/{quote(path)}"

    def sign(self, path: str | None = None, *, key: str = SECRET_KEY, **fields: object) -> str:
        """A token: for one use of a path if one is given, otherwise for everything in the bucket for a while."""
        now = int(time.time())
        plain: dict[str, object] = {"a": APPID, "b": BUCKET, "k": SECRET_ID, "e": now + 300, "t": now}
        plain |= {"r": next(self._random), "f": ""}
        if path is not None:
            plain |= {"e": 0, "f": f"/{APPID}/{BUCKET}/{quote(path)}"}
        text = "&".join(f"{name}={value}" for name, value in (plain | fields).items()).encode()
        return base64.b64encode(hmac.digest(key.encode(), text, "sha1") + text).decode()

    def post(
        self, path: str, op: str, content: bytes | None = None, *, token: str | None = None, **fields: object
    ) -> httpx.Response:
        parts: list[tuple[str, Any]] = [("op", (None, op)), *((name, (None, str(v))) for name, v in fields.items())]
        if content is not None:
            parts.append(("filecontent", (None, content)))
        token = self.sign() if token is None else token
        return self.http.post(self.url + self.path(path), files=parts, headers={"Authorization": token})

    def init(self, path: str, filesize: object, **fields: object) -> httpx.Response:
        return self.post(path, "upload_slice_init", **{"filesize": filesize, "slice_size": self.SLICE, **fields})

    def begin(self, path: str, filesize: int, **fields: object) -> str:
        """Begins an upload that must be accepted and returns its session."""
        answer = self.init(path, filesize, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["session"])

    def send(self, path: str, session: str, offset: int, content: bytes, **fields: object) -> httpx.Response:
        return self.post(path, "upload_slice_data", content, session=session, offset=offset, **fields)

    def send_all(self, path: str, session: str, data: bytes, **fields: object) -> None:
        for offset in range(0, len(data), self.SLICE):
            answer = self.send(path, session, offset, data[offset : offset + self.SLICE], **fields)
            assert answer.json()["code"] == 0, answer.text

    def list(self, path: str) -> httpx.Response:
        return self.post(path, "upload_slice_list")

    def finish(self, path: str, session: str, filesize: int, **fields: object) -> httpx.Response:
        return self.post(path, "upload_slice_finish", session=session, filesize=filesize, **fields)

    def upload(self, path: str, content: bytes, **fields: object) -> httpx.Response:
        return self.post(path, "upload", content, **fields)

    def stat(self, path: str) -> httpx.Response:
        return self.get(path, op="stat")

    def delete(self, path: str) -> httpx.Response:
        headers = {"Authorization": self.sign(path)}
        return self.http.post(self.url + self.path(path), json={"op": "delete"}, headers=headers)

    def get(self, path: str, headers: dict[str, str] | None = None, **query: object) -> httpx.Response:
        given = {"Authorization": self.sign(), **(headers or {})}
        return self.http.get(self.url + self.path(path), params={n: str(v) for n, v in query.items()}, headers=given)

    def close(self) -> None:
        self.http.close()


@pytest.fixture
def start_cos(tmp_path: Path) -> Iterator[Callable[..., Cos]]:
    """Starts emulators, all on one folder, with these fields of `EmulatorConfig`; each start ends the one before."""
    running: list[tuple[Emulator, Cos]] = []

    def stop() -> None:
        while running:
            emulator, cos = running.pop()
            cos.close()
            emulator.stop()

    def start(**fields: Any) -> Cos:
        stop()
        accounts = (StoreAccount(APPID, (BUCKET, "other"), SECRET_ID, SECRET_KEY),)
        config = {"data_dir": tmp_path / "data", "accounts": accounts, "fsync": False, **fields}
        emulator = Emulator(EmulatorConfig(**config))
        emulator.start()
        running.append((emulator, Cos(emulator.url, emulator.control_url, emulator.token_file)))
        return running[-1][1]

    yield start
    stop()


@pytest.fixture
def cos(start_cos: Callable[..., Cos]) -> Cos:
    """A client of an emulator with everything at its default, but syncing."""
    return start_cos()
