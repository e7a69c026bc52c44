"""Uploads a file in slices as the vendor's own clients do: without a digest, and unaware of other clients.

Run as a program, so that it can be killed in the middle: `python -m tests.acceptance.other_client URL KEY FILE` prints
a line for each slice that the store has acknowledged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.store import APPID, BUCKET, SECRET_ID, SECRET_KEY

SLICE_BYTES = 1024 * 1024
_BOUNDARY = "other-client"


def call(url: str, key: str, op: str, fields: dict[str, object], content: bytes | None = None) -> dict[str, Any]:
    """Send one operation and return the data of its answer."""
    parts = [(name, str(value).encode()) for name, value in {"op": op, **fields}.items()]
    parts += [] if content is None else [("filecontent", content)]
    body = b"".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    )
    request = urllib.request.Request(  # noqa: S310 - the test's own store
        f"{url}/files/v2/{APPID}/{BUCKET}/{key}",
        body + f"--{_BOUNDARY}--\r\n".encode(),
        {"Authorization": _signature(), "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return dict(json.load(answer).get("data") or {})


def _signature() -> str:
    now = int(time.time())
    fields = f"a={APPID}&k={SECRET_ID}&e={now + 300}&t={now}&r={secrets.randbelow(10**9)}&f=&b={BUCKET}".encode()
    return base64.b64encode(hmac.digest(SECRET_KEY.encode(), fields, hashlib.sha1) + fields).decode()


def main(url: str, key: str, file: str) -> None:
    """Upload the file."""
    content = Path(file).read_bytes()
    begun = call(url, key, "upload_slice_init", {"filesize": len(content), "slice_size": SLICE_BYTES})
    session, size = begun["session"], begun["slice_size"]
    for offset in range(0, len(content), size):
        call(url, key, "upload_slice_data", {"session": session, "offset": offset}, content[offset : offset + size])
        print(session, flush=True)  # noqa: T201
    call(url, key, "upload_slice_finish", {"session": session, "filesize": len(content)})


if __name__ == "__main__":
    main(*sys.argv[1:])
