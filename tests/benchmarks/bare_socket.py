"""The least that a client can do for a slice: a kept socket, head, form and bytes written, the answer's code read."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from threading import local
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from worker.stores.cos_json.signing import plain_text, token

if TYPE_CHECKING:
    from collections.abc import Mapping

_BOUNDARY = "bare-" + "0123456789abcdef" * 3  # short ones are sought for longer in the bytes
_FIELD = '--{0}\r\nContent-Disposition: form-data; name="{1}"\r\n\r\n{2}\r\n'
_FILE = '--{0}\r\nContent-Disposition: form-data; name="filecontent"; filename="slice"\r\n\r\n'
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


class BareSocket:
    """Sends slices; a socket for each thread."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._kept = local()

    def put_slice(self, key: str, handle: Mapping[str, str], offset_bytes: int, body: memoryview) -> None:
        """Send a slice; whatever the store refuses ends the benchmark."""
        fields = {"op": "upload_slice_data", "session": handle["session"], "offset": offset_bytes}
        form = "".join(_FIELD.format(_BOUNDARY, *each) for each in fields.items()) + _FILE.format(_BOUNDARY)
        line, path = self._line(), f"/files/v2/{self._given['appid']}/{self._given['bucket']}/{key}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {self._token()}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
            f"Content-Length: {len(form) + len(body) + len(_TAIL)}\r\n\r\n{form}"
        )
        _send(line, [memoryview(head.encode()), body, memoryview(_TAIL)])
        answer = json.loads(_answer(line))
        assert answer["code"] == 0, answer

    def _line(self) -> socket.socket:
        if not hasattr(self._kept, "line"):
            store = urlsplit(self._given["store"])
            assert store.hostname
            self._kept.line = socket.create_connection((store.hostname, store.port or 80), timeout=60)
            self._kept.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line: socket.socket = self._kept.line
        return line

    def _token(self) -> str:
        now = int(time.time())
        names = {"appid": self._given["appid"], "secret_id": self._given["id"], "bucket": self._given["bucket"]}
        return token(self._given["key"], plain_text(**names, expires=now + 600, now=now, nonce=random.getrandbits(32)))


def _send(line: socket.socket, left: list[memoryview]) -> None:
    """Write everything at once: a head or a tail by itself would wake the reader once more."""
    while left:
        sent = line.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def _answer(line: socket.socket) -> bytes:
    """Return the body of an answer."""
    answer = line.recv(1 << 16)
    while b"\r\n\r\n" not in answer:
        answer += line.recv(1 << 16)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    while length and len(body) < int(length[1]):
        body += line.recv(1 << 16)
    return body
