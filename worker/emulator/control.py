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

_TIMEOUT_S = 90.0


class ControlError(RuntimeError):
    """The emulator refused a control request; the text says why."""


class Control:
    """Talks to one emulator's control endpoint.

    Args:
        url: `Emulator.control_url`.
        token_file: `Emulator.token_file`; read anew for each request, since a start of the emulator changes it.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        # No proxy: the endpoint is on this machine, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def add_rule(self, fault: str, **fields: Any) -> int:
        """Puts a fault rule in force and returns its id. Fields as in `worker.emulator.core.faults.Rule`."""
        return int(self._call("POST", "/rules", {"fault": fault, **fields})[0]["id"])

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force, with how often they matched and struck."""
        return list(self._call("GET", "/rules"))

    def remove_rule(self, rule_id: int) -> None:
        """Takes one rule out of force."""
        self._call("DELETE", f"/rules/{rule_id}")

    def clear_rules(self) -> None:
        """Takes all rules out of force. Requests that are held stay held."""
        self._call("DELETE", "/rules")

    def requests(self, *, count: int = 0, timeout_s: float = 0.0, **wanted: object) -> list[dict[str, Any]]:
        """Journal entries that match, oldest first.

        Args:
            count: Wait until there are so many.
            timeout_s: Wait no longer than this, at most 60 s; what is there is returned then.
            wanted: Fields of an entry and their values: `op="data", code=0, path="videos/*"`. None asks for absence.
                `after=n` leaves out the entries up to number n.
        """
        query = {name: "" if value is None else value for name, value in wanted.items()}
        return list(self._call("GET", "/requests?" + urlencode({**query, "count": count, "timeout_s": timeout_s})))

    def clear_requests(self) -> None:
        """Empties the journal."""
        self._call("DELETE", "/requests")

    def release(self, number: int | None = None) -> int:
        """Lets the held request of this journal number go on, or all, and returns how many did."""
        return int(self._call("POST", "/release", {"number": number})["released"])

    def settings(self) -> dict[str, Any]:
        """The settings in force."""
        return dict(self._call("GET", "/settings"))

    def change(self, **settings: object) -> dict[str, Any]:
        """Changes settings: `rate_bytes_per_s`, `clock_offset_s` and the others of `config.RuntimeSettings`."""
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
        """Puts an object there, whatever was there before."""
        given = {"bucket": bucket, "path": path, "biz_attr": biz_attr, "with_sha": with_sha}
        return dict(self._call("POST", "/objects", {**given, "content": base64.b64encode(content).decode()}))

    def plant_upload(
        self, bucket: str, path: str, *, filesize: int, slices: Mapping[int, bytes] | None = None, **intent: object
    ) -> str:
        """Begins somebody else's upload, with these slices received, and returns its session.

        Args:
            bucket: Where.
            path: Where.
            filesize: Bytes of the whole file.
            slices: Offset in bytes -> the slice.
            intent: `slice_size` (1 MiB), `sha`, `uploadparts`, `insert_only`, `biz_attr`.
        """
        encoded = {str(offset): base64.b64encode(data).decode() for offset, data in (slices or {}).items()}
        given = {"bucket": bucket, "path": path, "filesize": filesize, "slices": encoded, **intent}
        return str(self._call("POST", "/uploads", given)["session"])

    def expire_sessions(self) -> int:
        """Ends all sessions now, as if they had grown too old, and returns how many there were."""
        return int(self._call("POST", "/expire", {})["expired"])

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token_file.read_text()}"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310 - our own address
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            with error:
                raise ControlError(json.loads(error.read())["error"]) from None
