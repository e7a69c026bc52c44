"""A response of a COS JSON store. Its body may be a JSON envelope, a gateway's HTML or XML, or empty."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from worker.stores.base import UploadedSlice
from worker.telemetry.secret_matcher import WINDOW_CHARS, SecretMatcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_TEXT_CHARS = 200
_REDACTED = "[secret]"
_TOKEN_LIKE = re.compile(r"[A-Za-z0-9+/=%_-]{48,}")  # tokens, sessions; longer than any request id or sha
_SIGN = re.compile(r"(sign|authorization)([=:]\s*)\S+", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,18}")
_CODE = re.compile(r"-?[0-9]{1,9}")
_URLS = ("access_url", "source_url", "url", "resource_path")
_FACTS = ("ctime", "mtime")


@dataclass(frozen=True, slots=True)
class StoreResponse:
    """A parsed response.

    Attributes:
        status: of HTTP.
        code: of the envelope; None if there is no envelope.
        raw_message: of the envelope, or the begin of another body; may contain secrets that the store echoes.
        raw_request_id: of the envelope; may contain secrets.
        secrets: what `summary` and `details` must not contain.
        data: of the envelope; empty if it has none.
        date: the `Date` header; not set for a success.
        retry_after: the delay that the store requests, if any; not set for a success.
        refused_by_gateway: an XML refusal, which is the response for an unknown appid or bucket.
    """

    status: int
    code: int | None
    raw_message: str = ""
    raw_request_id: str = ""
    secrets: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None
    retry_after: timedelta | None = None
    refused_by_gateway: bool = False

    @property
    def ok(self) -> bool:
        """Whether both the envelope and HTTP state success."""
        return self.code == 0 and httpx.codes.is_success(self.status)

    @property
    def summary(self) -> str:
        """Status, code, message and request id in one line, without secrets.

        Computed on demand: it is rarely needed, and takes as long as the rest of the parsing.
        """
        matcher = SecretMatcher(self.secrets)
        message, request_id = (text and _clean(text, matcher) for text in (self.raw_message, self.raw_request_id))
        code = "no JSON" if self.code is None else f"code {self.code}"
        parts = [f"HTTP {self.status}", code, message, request_id and f"request_id {request_id}"]
        return ", ".join(filter(None, parts))

    @property
    def complete(self) -> bool:
        """Whether it describes a finished object; every client of this API takes `access_url` as the sign of one."""
        return self.text("access_url") is not None

    def integer(self, name: str) -> int | None:
        """Return a number of the data, which may come as a number or as text; else None."""
        value = self.data.get(name)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def has(self, name: str) -> bool:
        """Return whether the data has a value of this name that is not null."""
        return self.data.get(name) is not None

    def text(self, name: str) -> str | None:
        """Return a non-empty text of the data, else None."""
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def sha(self) -> str | None:
        """Return the sha of the data without a suffix after `_`; None if there is none or it is all zeros."""
        value = (self.text("sha") or "").split("_", 1)[0].lower()
        return value if re.fullmatch(r"[0-9a-f]{40}", value) and value.strip("0") else None

    def slices(self) -> list[UploadedSlice] | None:
        """Return the slices in `listparts`: an array, or an array as text, or nothing. None if it cannot be read."""
        parts = self.data.get("listparts") or []
        try:
            if isinstance(parts, str):
                parts = json.loads(parts)
            slices = [UploadedSlice(int(part["offset"]), int(part["datalen"])) for part in parts]
        except (ValueError, OverflowError, TypeError, KeyError):
            return None
        return sorted(slices, key=lambda each: each.offset_bytes)

    def details(self) -> dict[str, str]:
        """Return facts for people; URLs come without their queries, which may contain a signature."""
        urls = {name: self._without_secrets(_without_query(url)) for name in _URLS if (url := self.text(name))}
        return urls | {name: str(fact) for name in _FACTS if (fact := self.integer(name)) is not None}

    def _without_secrets(self, text: str) -> str:
        """Return a text without secrets; the matcher is built only if the text contains a piece of one."""
        decoded, joined = unquote(text), "\0".join(self.secrets)
        pieces = (decoded[at : at + WINDOW_CHARS] for at in range(len(decoded) - WINDOW_CHARS + 1))
        if not any(piece in joined for piece in pieces):
            return text
        return SecretMatcher(self.secrets).blank(text, _REDACTED)


def parse_response(status: int, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> StoreResponse:
    """Parse an HTTP response; accepts any body. ``secrets`` are removed from the texts for people."""
    envelope = _envelope(body)
    code = envelope.get("code") if envelope else None
    data = envelope.get("data") if envelope else None
    message = str(envelope.get("message", "")) if envelope else body[:1000].decode("utf-8", "replace")
    if code == 0:
        message = ""  # the message of a success has no use
    request_id = str(envelope.get("request_id", "")) if envelope else ""
    fields = data if isinstance(data, dict) else {}
    response = StoreResponse(status, code, message, request_id, tuple(secrets), fields)
    if response.ok:
        return response
    date = headers.get("date")
    return replace(
        response,
        date=date,
        retry_after=_retry_after(headers.get("retry-after"), date),
        refused_by_gateway=httpx.codes.is_client_error(status) and b"<Code>InvalidRequest</Code>" in body,
    )


def _envelope(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    code = value.get("code")
    if isinstance(code, str) and _CODE.fullmatch(code):
        value["code"] = int(code)
        return value
    return value if isinstance(code, int) and not isinstance(code, bool) else None


def _clean(text: str, matcher: SecretMatcher) -> str:
    text = matcher.blank(text, _REDACTED)
    text = _TOKEN_LIKE.sub("[...]", _SIGN.sub(r"\1\2[...]", text))
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT_CHARS else text[: _MAX_TEXT_CHARS - 3] + "..."


def _without_query(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _retry_after(value: str | None, date: str | None) -> timedelta | None:
    if value is None:
        return None
    if _NUMBER.fullmatch(value):
        return timedelta(seconds=min(int(value), 86_400))
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(timedelta(0), min(until - now, timedelta(days=1)))
    except (ValueError, TypeError):
        return None
