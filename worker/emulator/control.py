"""A client of the control endpoint, for tests, demos and drills."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONTROL_FILE = "control-token"
"""Name of the file below the data folder that holds the token."""
_TIMEOUT_S = 90.0


class ControlError(RuntimeError):
    """The emulator refused a control request; the text has the cause."""


class Control:
    """A client of one emulator's control endpoint.

    Args:
        url: `Emulator.control_url`.
        token_file: `Emulator.token_file`; read for each request, since each start of the emulator replaces the token.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        # No proxy, whatever the environment says: the endpoint is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def add_rule(self, fault: str, **fields: Any) -> int:
        """Adds a fault rule and returns its id. Fields: see `worker.emulator.core.faults.Rule`."""
        return int(self._call("POST", "/rules", {"fault": fault, **fields})[0]["id"])

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force, with their counters `matched` and `struck`."""
        return list(self._call("GET", "/rules"))

    def remove_rule(self, rule_id: int) -> None:
        """Removes one rule."""
        self._call("DELETE", f"/rules/{rule_id}")

    def clear_rules(self) -> None:
        """Removes all rules. Held requests stay held."""
        self._call("DELETE", "/rules")

    def requests(self, *, count: int = 0, timeout_s: float = 0.0, **fields: object) -> list[dict[str, Any]]:
        """Waits until `count` journal entries match or the time is up; returns those that match, oldest first.

        Args:
            count: The number of entries to wait for.
            timeout_s: Seconds to wait, at most 60.
            fields: Fields of an entry and their values: `op="data", code=0, path="videos/*"`. None: the entry has no
                value. `after=n`: only entries with a number above n.
        """
        query = {name: "" if value is None else value for name, value in fields.items()}
        return list(self._call("GET", "/requests?" + urlencode({**query, "count": count, "timeout_s": timeout_s})))

    def clear_requests(self) -> None:
        """Empties the journal."""
        self._call("DELETE", "/requests")

    def release(self, number: int | None = None) -> int:
        """Releases the held request with this journal number, or all, and returns how many."""
        return int(self._call("POST", "/release", {"number": number})["released"])

    def settings(self) -> dict[str, Any]:
        """The settings in force."""
        return dict(self._call("GET", "/settings"))

    def change(self, **settings: object) -> dict[str, Any]:
        """Changes settings, fields of `config.RuntimeSettings`; returns all."""
        return dict(self._call("PATCH", "/settings", settings))

    def uploads(self, bucket: str) -> list[dict[str, Any]]:
        """Unfinished uploads of a bucket, each with its `slices` as (offset, size)."""
        return list(self._call("GET", "/uploads?" + urlencode({"bucket": bucket})))

    def objects(self, bucket: str) -> list[dict[str, Any]]:
        """Complete objects of a bucket."""
        return list(self._call("GET", "/objects?" + urlencode({"bucket": bucket})))

    def plant_object(
        self, bucket: str, path: str, content: bytes, *, biz_attr: str = "", with_sha: bool = False
    ) -> dict[str, Any]:
        """Stores an object; replaces an existing one."""
        body = {"bucket": bucket, "path": path, "biz_attr": biz_attr, "with_sha": with_sha}
        return dict(self._call("POST", "/objects", {**body, "content": base64.b64encode(content).decode()}))

    def plant_upload(
        self, bucket: str, path: str, *, filesize: int, slices: Mapping[int, bytes] | None = None, **fields: object
    ) -> str:
        """Begins an upload as another client would, with these slices received, and returns its session.

        Args:
            bucket: Bucket of the object.
            path: Path of the object.
            filesize: Bytes of the whole file.
            slices: Offset in bytes -> the slice.
            fields: `slice_size` (1 MiB), `sha`, `uploadparts`, `insert_only`, `biz_attr`.
        """
        encoded = {str(offset): base64.b64encode(data).decode() for offset, data in (slices or {}).items()}
        body = {"bucket": bucket, "path": path, "filesize": filesize, "slices": encoded, **fields}
        return str(self._call("POST", "/uploads", body)["session"])

    def expire_sessions(self) -> int:
        """Discards all unfinished uploads as if they had expired, and returns how many."""
        return int(self._call("POST", "/expire", {})["expired"])

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token_file.read_text()}"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310 - our own address
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                return json.loads(response.read())
        except HTTPError as error:
            with error:
                raise ControlError(json.loads(error.read())["error"]) from None
