"""The server side of the control endpoint: fault rules, the journal, settings, uploads and objects."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from worker.emulator.config import MIB, RuntimeSettings
from worker.emulator.control import CONTROL_FILE
from worker.emulator.core.content import Content
from worker.emulator.core.errors import StorageError
from worker.emulator.core.faults import Rule
from worker.emulator.core.uploads import UploadRequest
from worker.emulator.cos_json.errors import CosError, GatewayError, cos_error_of
from worker.emulator.cos_json.targets import target_of
from worker.emulator.cos_json.uploadparts import read_uploadparts
from worker.emulator.http.connection import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker.emulator.core.store import Store
    from worker.emulator.core.targets import Target
    from worker.emulator.http.connection import HttpConnection, HttpRequest

_MAX_WAIT_S = 60.0


class ControlHandler:
    """Serves control requests for one store; all but `GET /health` need `Authorization: Bearer <token>`.

    | request | does |
    | --- | --- |
    | `GET /health` | succeeds while the emulator runs |
    | `GET, POST, DELETE /rules`, `DELETE /rules/<id>` | the fault plan; POST one rule or a list |
    | `GET, DELETE /requests` | the journal; query: fields of an entry, `after`, `count` and `timeout_s` to wait |
    | `POST /release` | releases held requests: all, or `{"number": n}` |
    | `GET, PATCH /settings` | the settings that may change while it runs |
    | `GET, POST /uploads` | lists the unfinished uploads of `?bucket=`; begins one as another client would |
    | `POST /expire` | discards unfinished uploads, or only those `older_than_s` |
    | `GET, POST /objects` | lists the objects of `?bucket=`; stores one as another client would |
    """

    def __init__(self, store: Store, token: str) -> None:
        self._store = store
        self._authorization = f"Bearer {token}".encode()
        self._routes: dict[tuple[str, str], Callable[[dict[str, str], Any], Any]] = {
            ("GET", "/health"): lambda *_: {},
            ("GET", "/rules"): lambda *_: [rule.to_json() for rule in store.plan.rules()],
            ("POST", "/rules"): self._add_rules,
            ("DELETE", "/rules"): lambda *_: store.plan.remove(),
            ("GET", "/requests"): self._requests,
            ("DELETE", "/requests"): lambda *_: store.journal.clear(),
            ("POST", "/release"): lambda _, body: {"released": store.plan.release((body or {}).get("number"))},
            ("GET", "/settings"): lambda *_: dataclasses.asdict(store.settings),
            ("PATCH", "/settings"): self._change,
            ("GET", "/uploads"): self._uploads,
            ("POST", "/uploads"): self._plant_upload,
            ("POST", "/expire"): self._expire,
            ("GET", "/objects"): self._objects,
            ("POST", "/objects"): self._plant_object,
        }

    def handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Serves one request and returns whether the connection stays open."""
        body = connection.read_body() or b"null"
        try:
            status, value = self._check_token(request) or (200, self._route(request, json.loads(body)))
        except LookupError:
            status, value = 404, {"error": f"no such request: {request.method} {request.path}"}
        except (ValueError, TypeError, AttributeError, CosError, GatewayError) as error:
            status, value = 400, {"error": str(error)}
        except StorageError as error:
            status, value = 400, {"error": str(cos_error_of(error))}
        response = HttpResponse(status, json.dumps(value).encode(), "application/json")
        connection.send(response.head(now_s=time.time(), keep_alive=request.keep_alive) + response.body)
        return request.keep_alive

    def _check_token(self, request: HttpRequest) -> tuple[int, dict[str, str]] | None:
        """Returns the refusal of a request without the token."""
        given = request.headers.get("authorization", "").encode()
        if (request.method, request.path) == ("GET", "/health") or hmac.compare_digest(given, self._authorization):
            return None
        return 401, {"error": f"Authorization: Bearer <what {CONTROL_FILE} in the data folder has> is missing or wrong"}

    def _route(self, request: HttpRequest, body: Any) -> Any:
        if request.method == "DELETE" and (rule := re.fullmatch(r"/rules/(\d+)", request.path)):
            return self._store.plan.remove(int(rule[1]))
        return self._routes[request.method, request.path](request.query, body)

    def _add_rules(self, _: dict[str, str], body: Any) -> list[dict[str, Any]]:
        rules = [Rule.from_json(each) for each in (body if isinstance(body, list) else [body])]
        return [self._store.plan.add(rule).to_json() for rule in rules]

    def _requests(self, query: dict[str, str], _: Any) -> list[dict[str, Any]]:
        count = int(query.pop("count", 0))
        timeout_s = min(float(query.pop("timeout_s", 0)), _MAX_WAIT_S)
        return self._store.journal.select(query, count=count, timeout_s=timeout_s)

    def _change(self, _: dict[str, str], body: Any) -> dict[str, Any]:
        unknown = set(body) - {each.name for each in dataclasses.fields(RuntimeSettings)}
        if unknown:
            raise ValueError(f"no such settings: {', '.join(sorted(unknown))}")
        for name, value in body.items():
            setattr(self._store.settings, name, value)
        return dataclasses.asdict(self._store.settings)

    def _bucket_id(self, given: dict[str, str]) -> str:
        return self._target({**given, "path": ""}).bucket_id

    def _target(self, given: dict[str, Any]) -> Target:
        appid = given.get("appid") or self._store.config.accounts[0].appid
        return target_of(f"/files/v2/{appid}/{given['bucket']}/{quote(given['path'])}", self._store.config.accounts)

    def _uploads(self, query: dict[str, str], _: Any) -> list[dict[str, Any]]:
        records = self._store.records
        return [
            {**dataclasses.asdict(upload), "slices": records.slices(upload.session)}
            for upload in records.uploads(self._bucket_id(query))
        ]

    def _objects(self, query: dict[str, str], _: Any) -> list[dict[str, Any]]:
        return [dataclasses.asdict(stored) for stored in self._store.records.objects(self._bucket_id(query))]

    def _expire(self, _: dict[str, str], body: Any) -> dict[str, int]:
        older_than_s = float((body or {}).get("older_than_s", -1))
        return {"expired": self._store.uploads.expire(older_than_s=older_than_s)}

    def _plant_object(self, _: dict[str, str], body: Any) -> dict[str, Any]:
        data = base64.b64decode(body.get("content", ""))
        content = Content(len(data), memoryview(data))
        stored = self._store.objects.put(
            self._target(body),
            content,
            sha=content.sha1() if body.get("with_sha") else "",
            biz_attr=body.get("biz_attr", ""),
            insert_only=False,
        )
        return dataclasses.asdict(stored)

    def _plant_upload(self, _: dict[str, str], body: Any) -> dict[str, Any]:
        """Begins an upload, under the same checks as an init; `slices` maps offsets to Base64."""
        filesize, sha = body["filesize"], body.get("sha", "")
        parts = read_uploadparts(body.get("uploadparts", ""), filesize_bytes=filesize, sha=sha) if sha else ()
        request = UploadRequest(
            filesize=filesize,
            slice_size=body.get("slice_size", MIB),
            sha=sha,
            parts=tuple(parts),
            insert_only=body.get("insert_only", True),
            biz_attr=body.get("biz_attr", ""),
        )
        opened = self._store.uploads.begin(self._target(body), request, slice_size=None, serial=False)
        upload = self._store.uploads.at(self._target(body))
        if upload is None:
            raise ValueError("the store has these bytes already, so no upload began")
        for offset, text in body.get("slices", {}).items():
            self._store.uploads.receive(upload, int(offset), memoryview(base64.b64decode(text)))
        return dataclasses.asdict(opened)


def fresh_token(file: Path) -> str:
    """Replaces the token in the file atomically and returns the new one."""
    token = secrets.token_urlsafe(24)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(token)
    new.replace(file)
    return token
