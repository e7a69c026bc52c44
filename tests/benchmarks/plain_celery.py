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
from typing import TYPE_CHECKING, Any

import httpx
from celery import Celery, chord
from celery.utils import uuid
from timed import timed

from worker.stores.cos_json.signing import plain_text, token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.result import AsyncResult

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
        post(path, {"op": "upload"}, source.read())


@app.task(name="plain.chord", ignore_result=True)
def start(path: str, file: str, last: str) -> None:
    """Begin an upload in slices; ``last`` is the id that its finish is to have."""
    begin(path, file, 1 << 20, last)


@app.task(name="plain.nothing")
def nothing() -> None:
    """What a task costs that does nothing."""


def begin(path: str, file: str, slice_bytes: int, last: str) -> None:
    """Open a session, and send a task for each slice and one that finishes."""
    size = os.stat(file).st_size  # noqa: PTH116
    opened = post(path, {"op": "upload_slice_init", "filesize": size, "slice_size": slice_bytes})
    session, step = opened["session"], opened["slice_size"]
    slices = [put.s(path, file, session, at, min(step, size - at)) for at in range(0, size, step)]
    chord(slices)(finish.s(path, session, size).set(task_id=last))


def wait(results: Iterable[AsyncResult]) -> None:
    """Wait for all; one that failed ends the benchmark."""
    for result in results:
        result.get(timeout=600, interval=0.01)


def main() -> None:
    """Do once what standard input says, and print the seconds."""
    wanted = json.load(sys.stdin)
    files = [(f"{wanted['stem']}/{number:05}", file) for number, file in enumerate(wanted.get("files", ()))]
    last = [uuid() for _ in files]
    with timed():
        if wanted["what"] == "large":
            for (path, file), each in zip(files, last, strict=True):
                begin(path, file, wanted["slice_bytes"], each)
            wait(map(app.AsyncResult, last))
        elif wanted["what"] == "small":
            wait([small.delay(*each) for each in files])
        elif wanted["what"] == "chord":
            for each, finished in zip(files, last, strict=True):
                start.delay(*each, finished)
            wait(map(app.AsyncResult, last))
        else:
            wait([nothing.delay() for _ in range(wanted["count"])])


if __name__ == "__main__":
    main()
