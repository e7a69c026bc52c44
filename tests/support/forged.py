"""Messages that a client with write access to the broker may push: from no message at all to a nearly valid one."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from uuid import uuid4

from worker.jobs.task_names import QUEUE, TaskName

DELIVERY = {"exchange": "", "routing_key": QUEUE}
LONG = 8 * 1024 * 1024


def kwargs(**changes: Any) -> dict[str, Any]:
    """The arguments of an init of a job that there is not."""
    return {"job": str(uuid4()), "token": 1, "epoch": 1, **changes}


def body(said: Any) -> str:
    """A body as kombu writes it."""
    return base64.b64encode((said if isinstance(said, str) else json.dumps(said)).encode()).decode()


def message(said: dict[str, Any] | None = None, task: str = TaskName.INIT, **changes: Any) -> dict[str, Any]:
    """A message as our dispatcher writes it but for the changes; `headers` and `properties` are added to."""
    headers = {"lang": "py", "task": task, "id": str(uuid4()), "argsrepr": "forged", "kwargsrepr": "{}", "retries": 0}
    properties = {"delivery_mode": 2, "delivery_info": DELIVERY, "priority": 0, "body_encoding": "base64"}
    follows = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    made = {
        "body": body([[], kwargs() if said is None else said, follows]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers | changes.pop("headers", {}),
        "properties": properties | {"delivery_tag": uuid4().hex} | changes.pop("properties", {}),
    }
    return made | changes


def without(part: str, *path: str) -> dict[str, Any]:
    """A message that lacks a part, or a part of a part."""
    made = message()
    where = made
    for name in path:
        where = where[name]
    del where[part]
    return made


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


#: A name, and what is pushed: text as it stands, anything else as JSON.
_FORGED: dict[str, Any] = {
    "nothing": "",
    "no-json": "garbage",
    "no-utf-8": b"\xff\xfe\x00",
    "half-of-one": json.dumps(message())[:200],
    "deep-json": _nested(200_000),
    "a-number-of-5000-digits": "9" * 5000,
    "null": None,
    "a-list": [1, 2],
    "a-string": '"text of JSON"',
    "a-number": 7,
    "an-empty-object": {},
    "a-type-that-kombu-makes": {"__type__": "decimal", "__value__": "no number"},
    "a-bytes-type": {"__type__": "bytes", "__value__": 1},
    "no-properties": without("properties"),
    "properties-null": message() | {"properties": None},
    "properties-list": message() | {"properties": []},
    "no-delivery-tag": without("delivery_tag", "properties"),
    "delivery-tag-list": message(properties={"delivery_tag": []}),
    "no-delivery-info": without("delivery_info", "properties"),
    "delivery-info-text": message(properties={"delivery_info": "x"}),
    "no-body-encoding": without("body_encoding", "properties"),
    "unknown-body-encoding": message(properties={"body_encoding": "rot13"}),
    "body-encoding-list": message(properties={"body_encoding": []}),
    "priority-text": message(properties={"priority": "high"}),
    "no-headers": without("headers"),
    "headers-null": message() | {"headers": None},
    "headers-list": message() | {"headers": [1]},
    "headers-text": message() | {"headers": "x"},
    "no-id": without("id", "headers"),
    "id-list": message(headers={"id": []}),
    "id-object": message(headers={"id": {}}),
    "id-null": message(headers={"id": None}),
    "id-no-uuid": message(headers={"id": "x"}),
    "no-task": without("task", "headers"),
    "task-null": message(headers={"task": None}),
    "task-list": message(headers={"task": []}),
    "unknown-task": message(task="os.system"),
    "a-task-of-celery": message(task="celery.backend_cleanup"),
    "celery-map": message(task="celery.map"),
    "celery-chunks": message(task="celery.chord_unlock"),
    "argsrepr-object": message(headers={"argsrepr": {"a": 1}}),
    "argsrepr-long": message(headers={"argsrepr": "x" * LONG}),
    "shadow-list": message(headers={"shadow": [1]}),
    "traceparent-list": message(headers={"traceparent": [1]}),
    "baggage-long": message(headers={"traceparent": "no trace", "tracestate": {}, "baggage": "x" * LONG}),
    "timelimit-text": message(headers={"timelimit": "x"}),
    "compressed": message(headers={"compression": "application/x-gzip"}, body=body("no gzip")),
    "unknown-compression": message(headers={"compression": "nothing"}),
    "compression-list": message(headers={"compression": []}),
    "compression-bomb": message(
        headers={"compression": "zlib"}, body=base64.b64encode(zlib.compress(b" " * 8 * LONG)).decode()
    ),
    "no-body": without("body"),
    "body-null": message(body=None),
    "body-list": message(body=[1]),
    "body-number": message(body=5),
    "body-no-base64": message(body="!"),
    "body-half-base64": message(body="YWJ"),
    "body-no-json": message(body=body("garbage")),
    "body-no-utf-8": message(body=base64.b64encode(b"\xff\xfe").decode()),
    "body-deep": message(body=body(_nested(200_000))),
    "body-an-object": message(body=body(kwargs())),
    "body-of-protocol-1": message(body=body({"task": TaskName.INIT, "id": "x", "args": [], "kwargs": kwargs()})),
    "body-two-parts": message(body=body([[], kwargs()])),
    "body-four-parts": message(body=body([[], kwargs(), {}, {}])),
    "body-numbers": message(body=body([1, 2, 3])),
    "body-nulls": message(body=body([None, None, None])),
    "body-text-parts": message(body=body(["a", "b", "c"])),
    "body-positional": message(body=body([[1], kwargs(), {}])),
    "body-nan": message(body=body('[[], {"job": NaN}, {}]')),
    "content-type-null": message() | {"content-type": None},
    "content-type-list": message() | {"content-type": []},
    "content-type-unknown": message() | {"content-type": "application/x-nothing"},
    "content-type-pickle": message() | {"content-type": "application/x-python-serialize"},
    "content-type-yaml": message() | {"content-type": "application/x-yaml"},
    "content-type-text": message() | {"content-type": "text/plain"},
    "content-type-data": message() | {"content-type": "application/data", "content-encoding": "binary"},
    "content-encoding-unknown": message() | {"content-encoding": "klingon", "content-type": "text/plain"},
    "no-arguments": message({}),
    "an-unknown-argument": message(kwargs(sudo=True)),
    "job-no-uuid": message(kwargs(job="x")),
    "job-number": message(kwargs(job=5)),
    "job-list": message(kwargs(job=[])),
    "job-null": message(kwargs(job=None)),
    "no-job": message({"token": 1, "epoch": 1}),
    "no-token": message({"job": str(uuid4()), "epoch": 1}),
    "token-text": message(kwargs(token="1")),
    "token-true": message(kwargs(token=True)),
    "token-float": message(kwargs(token=1.5)),
    "token-huge": message(kwargs(token=10**30)),
    "epoch-huge": message(kwargs(epoch=2**40)),
    "epoch-object": message(kwargs(epoch={})),
    "number-of-an-init": message(kwargs(number=1)),
    "number-huge": message(kwargs(number=2**40), TaskName.SLICE),
    "number-text": message(kwargs(number="1"), TaskName.SLICE),
    "no-number-of-a-slice": message(kwargs(), TaskName.SLICE),
    "alone-text": message(kwargs(alone="yes")),
    "eta": message(headers={"eta": "2030-01-01T00:00:00+00:00"}),
    "eta-garbage": message(headers={"eta": "soon"}),
    "eta-list": message(headers={"eta": [1]}),
    "eta-far": message(headers={"eta": "9999-12-31T23:59:59+00:00"}),
    "expires-garbage": message(headers={"expires": "soon"}),
    "expires-list": message(headers={"expires": [1]}),
    "expires-past": message(headers={"expires": "2020-01-01T00:00:00+00:00"}),
    "expires-future": message(headers={"expires": "2090-01-01T00:00:00+00:00"}),
    "errbacks": message(headers={"errbacks": [{"task": "celery.ping"}], "chord": {"task": "x"}}),
    "stamped": message(headers={"stamped_headers": 5, "stamps": []}),
    "very-large": "x" * 8 * LONG,
    "very-large-object": {"body": "x" * 4 * LONG},
}
FORGED = {name: given if isinstance(given, (str, bytes)) else json.dumps(given) for name, given in _FORGED.items()}


def command(said: Any, **changes: Any) -> dict[str, Any]:
    """A control command as kombu broadcasts it, but for the changes."""
    return message(**{"headers": {"clock": 1, "expires": None}, "body": body(said)} | changes)


_PING = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
_COMMANDS: dict[str, Any] = {
    "no-json": "garbage",
    "deep-json": _nested(200_000),
    "a-list": [1],
    "a-number": 7,
    "an-empty-object": {},
    "a-type-that-kombu-makes": {"__type__": "decimal", "__value__": "no number"},
    "no-properties": without("properties"),
    "no-delivery-tag": without("delivery_tag", "properties"),
    "headers-list": command(_PING, headers={}) | {"headers": [1]},
    "compression-bomb": command(_PING, headers={"compression": "zlib"}),
    "clock-text": command(_PING, headers={"clock": "noon"}),
    "pickle": command(_PING) | {"content-type": "application/x-python-serialize"},
    "body-list": command([1]),
    "body-text": command("x"),
    "body-no-base64": command(_PING, body="!"),
    "unknown-method": command(_PING | {"method": "format_disk"}),
    "method-list": command(_PING | {"method": []}),
    "no-method": command({"arguments": {}}),
    "arguments-list": command(_PING | {"arguments": [1]}),
    "unknown-argument": command(_PING | {"arguments": {"sudo": True}}),
    "destination-number": command(_PING | {"destination": 5}),
    "pattern-broken": command(_PING | {"pattern": "[", "matcher": "pcre"}),
    "matcher-unknown": command(_PING | {"pattern": "x", "matcher": "x"}),
    "reply-to-text": command(_PING | {"reply_to": "x", "ticket": "x"}),
    "revoke-of-a-number": command(_PING | {"method": "revoke", "arguments": {"task_id": 5}}),
    "rate-limit-of-none": command(_PING | {"method": "rate_limit", "arguments": {"task_name": "x", "rate_limit": "x"}}),
}
COMMANDS = {name: given if isinstance(given, str) else json.dumps(given) for name, given in _COMMANDS.items()}
