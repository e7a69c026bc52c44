"""A client of the COS JSON API that shares no code with the driver."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from worker.emulator.control import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1024, 1024 * 1024
SLICE = 512 * KIB
APPID, BUCKET, SECRET_ID, SECRET_KEY = "10055004", "uploads", "fake-secret-id", "fake-secret-key"


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def outcome(response: Any) -> tuple[int, int]:
    """Status and code of a response without data."""
    body = response.json()
    assert "data" not in body
    assert body["request_id"]
    return response.status_code, body["code"]


class Cos:
    """Requests as the vendor's pages describe them, with a valid signature unless another is given."""

    def __init__(self, url: str, control_url: str = "", token_file: str | Path = "") -> None:
        self.url = url
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self.control_url, self.token_file = control_url, Path(token_file)
        self.control = Control(control_url, self.token_file)
        # No certificates: loading them takes longer than most of these tests, and nothing is encrypted.
        self.http = httpx.Client(trust_env=False, timeout=120, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._random = itertools.count(1)

    def path(self, path: str) -> str:
        return f"/files/v2/{APPID}/{BUCKET}/{quote(path)}"

    def sign(self, path: str | None = None, *, key: str = SECRET_KEY, **fields: object) -> str:
        """A token: a one-time token for a path if one is given, otherwise a reusable one for the bucket."""
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
        return self.post(path, "upload_slice_init", **{"filesize": filesize, "slice_size": SLICE, **fields})

    def begin(self, path: str, filesize: int, **fields: object) -> str:
        """Begins an upload, which must succeed, and returns its session."""
        response = self.init(path, filesize, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["data"]["session"])

    def send(self, path: str, session: str, offset: int, content: bytes, **fields: object) -> httpx.Response:
        return self.post(path, "upload_slice_data", content, session=session, offset=offset, **fields)

    def send_all(self, path: str, session: str, data: bytes, **fields: object) -> None:
        for offset in range(0, len(data), SLICE):
            response = self.send(path, session, offset, data[offset : offset + SLICE], **fields)
            assert response.json()["code"] == 0, response.text

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


@contextlib.contextmanager
def cos_process(folder: Path, *options: str) -> Iterator[Any]:
    """A client of an emulator in a process of its own; the end of the block kills the process."""
    folder.with_suffix(".key").write_text(f"{SECRET_KEY}\n")
    command = [sys.executable, "-m", "worker.emulator", "--data-dir", str(folder), "--appid", APPID, "--bucket", BUCKET]
    command += ["--secret-id", SECRET_ID, "--secret-key-file", str(folder.with_suffix(".key")), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    cos: Any = Cos(*process.stdout.readline().split()[2::2])
    cos.process = process
    try:
        yield cos
    finally:
        kill(cos)
        cos.close()
        process.stdout.close()


def kill(cos: Any) -> None:
    """SIGKILL for the process of the emulator."""
    cos.process.kill()
    cos.process.wait(10)
