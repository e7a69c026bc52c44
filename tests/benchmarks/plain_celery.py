"""What one would otherwise build: a Celery task a slice, prefork, a chord that finishes, results in Redis.

Nothing outlives a crash here but what the broker and the result backend still have.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from typing import Any

import httpx
from celery import Celery, chord

from worker.stores.cos_json_sign import plain_text, token

given = {name: os.environ.get(f"PLAIN_{name.upper()}", "") for name in ("store", "appid", "bucket", "id", "key")}
app = Celery("plain", broker=os.environ.get("PLAIN_BROKER"), backend=os.environ.get("PLAIN_BROKER"))
app.conf.update(task_default_queue="plain", worker_send_task_events=True, task_acks_late=True)
_kept = threading.local()


def post(path: str, data: dict[str, Any], content: bytes | None = None) -> dict[str, Any]:
    """Send one request of the protocol."""
    if not hasattr(_kept, "client"):
        _kept.client = httpx.Client(timeout=60, trust_env=False)
    files = {name: (None, str(value)) for name, value in data.items()} | (
        {} if content is None else {"filecontent": ("slice", content)}
    )
    url = f"{given['store']}/files/v2/{given['appid']}/{given['bucket']}/{path}"
    answer = _kept.client.post(url, files=files, headers={"Authorization": signature()}).json()
    if answer["code"] != 0:
        raise RuntimeError(str(answer))
    return dict(answer.get("data") or {})


def signature() -> str:
    """Sign as the protocol wants it: good for some minutes."""
    now = int(time.time())
    names = {"appid": given["appid"], "secret_id": given["id"], "bucket": given["bucket"]}
    return token(given["key"], plain_text(**names, expires=now + 600, now=now, nonce=random.randrange(2**32)))


@app.task(name="plain.put", acks_late=True)
def put(path: str, file: str, session: str, offset: int, size: int) -> None:
    """Send one slice."""
    with open(file, "rb") as source:  # noqa: PTH123 - as it would be written
        source.seek(offset)
        content = source.read(size)
    post(path, {"op": "upload_slice_data", "session": session, "offset": offset}, content)


@app.task(name="plain.finish")
def finish(_: object, path: str, session: str, size: int) -> None:
    """Complete the object."""
    post(path, {"op": "upload_slice_finish", "session": session, "filesize": size})


@app.task(name="plain.small")
def small(path: str, file: str) -> None:
    """Upload a small file in one request."""
    with open(file, "rb") as source:  # noqa: PTH123
        post(path, {"op": "upload", "insertOnly": 0}, source.read())


@app.task(name="plain.nothing")
def nothing() -> None:
    """What a task costs that does nothing."""


def upload(path: str, file: str, slice_bytes: int) -> None:
    """Upload a file and wait for it."""
    size = os.stat(file).st_size  # noqa: PTH116
    opened = post(path, {"op": "upload_slice_init", "filesize": size, "slice_size": slice_bytes, "insertOnly": 0})
    session, step = opened["session"], opened["slice_size"]
    slices = [put.s(path, file, session, at, min(step, size - at)) for at in range(0, size, step)]
    chord(slices)(finish.s(path, session, size)).get(timeout=600, interval=0.02)


def many(count: int, task: Any, *arguments: tuple[Any, ...]) -> None:
    """Run a task so many times, and wait for the last by a counter of its own."""
    results = [task.apply_async(each) for each in arguments or [()] * count]
    for result in results:
        result.get(timeout=600, interval=0.01)


def main() -> None:
    """Do what the arguments say once and print the seconds."""
    wanted = json.loads(sys.argv[1])
    began = time.perf_counter()
    if wanted["what"] == "large":
        upload(wanted["path"], wanted["file"], wanted["slice_bytes"])
    elif wanted["what"] == "small":
        many(0, small, *[tuple(each) for each in wanted["files"]])
    else:
        many(wanted["count"], nothing)
    sys.stdout.write(json.dumps({"s": time.perf_counter() - began}) + "\n")


if __name__ == "__main__":
    main()
