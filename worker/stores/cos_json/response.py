"""An answer of a COS JSON store, read from whatever came: a JSON envelope, a gateway's HTML or XML, or nothing."""

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

_SHOWN_CHARS = 200
_BLANK = "[secret]"
_TOKEN_LIKE = re.compile(r"[A-Za-z0-9+/=%_-]{48,}")  # tokens, sessions; longer than any request id or sha
_SIGN = re.compile(r"(sign|authorization)([=:]\s*)\S+", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,18}")
_CODE = re.compile(r"-?[0-9]{1,9}")
_URLS = ("access_url", "source_url", "url", "resource_path")
_FACTS = ("ctime", "mtime")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said.

    Attributes:
        status: of HTTP.
        code: of the envelope; None where there was no envelope.
        data: of the envelope; empty where it had none.
        date: the `Date` header; not read of a success.
        retry_after: the store's wish, if it gave one; not read of a success.
        refused_by_gateway: an XML refusal, which is how an unknown appid or bucket is answered.
        said: the message as it came, and the request id after it; it may quote what we sent.
        secrets: what must not be shown of it.
    """

    status: int
    code: int | None
    said: tuple[str, str] = ("", "")
    secrets: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None
    retry_after: timedelta | None = None
    refused_by_gateway: bool = False

    @property
    def ok(self) -> bool:
        """Both the envelope and HTTP say success."""
        return self.code == 0 and httpx.codes.is_success(self.status)

    @property
    def words(self) -> str:
        """Status, code, message and request id in one line, for people; free of secrets.

        Made when it is asked for: of a success hardly ever, and to clean it takes as long as to read the rest.
        """
        matcher = SecretMatcher(self.secrets)
        message, request_id = (text and _clean(text, matcher) for text in self.said)
        known = "no JSON" if self.code is None else f"code {self.code}"
        shown = [f"HTTP {self.status}", known, message, request_id and f"request_id {request_id}"]
        return ", ".join(filter(None, shown))

    @property
    def complete(self) -> bool:
        """It describes a finished object: what every client takes for the sign of one."""
        return self.text("access_url") is not None

    def integer(self, name: str) -> int | None:
        """Return a number of the data, given as one or as text; None where it is neither."""
        value = self.data.get(name)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def has(self, name: str) -> bool:
        """Say whether the data has a value of this name; one that is null is none."""
        return self.data.get(name) is not None

    def text(self, name: str) -> str | None:
        """Return a non-empty text of the data, else None."""
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def sha(self) -> str | None:
        """Return the sha of the data without a suffix after `_`; None where there is none, or zeros stand for none."""
        value = (self.text("sha") or "").split("_", 1)[0].lower()
        return value if re.fullmatch(r"[0-9a-f]{40}", value) and value.strip("0") else None

    def held(self) -> list[UploadedSlice] | None:
        """Return `listparts`, an array, or a text that holds one, or nothing; None where it cannot be read."""
        parts = self.data.get("listparts") or []
        try:
            if isinstance(parts, str):
                parts = json.loads(parts)
            held = [UploadedSlice(int(part["offset"]), int(part["datalen"])) for part in parts]
        except (ValueError, OverflowError, TypeError, KeyError):
            return None
        return sorted(held, key=lambda one: one.offset_bytes)

    def details(self) -> dict[str, str]:
        """Return what may be shown to people; URLs without their queries, which may carry a signature."""
        urls = {name: self._without_secrets(_bare(url)) for name in _URLS if (url := self.text(name))}
        return urls | {name: str(fact) for name in _FACTS if (fact := self.integer(name)) is not None}

    def _without_secrets(self, text: str) -> str:
        """Return a text of a success without secrets; they are prepared for only if it has a piece of one."""
        decoded, whole = unquote(text), "\0".join(self.secrets)
        pieces = (decoded[at : at + WINDOW_CHARS] for at in range(len(decoded) - WINDOW_CHARS + 1))
        if not any(piece in whole for piece in pieces):
            return text
        return SecretMatcher(self.secrets).blank(text, _BLANK)


def read_answer(status: int, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> Answer:
    """Make an answer of a response; survives any body. ``secrets`` are taken out of what is kept for people."""
    envelope = _envelope(body)
    code = envelope.get("code") if envelope else None
    data = envelope.get("data") if envelope else None
    message = str(envelope.get("message", "")) if envelope else body[:1000].decode("utf-8", "replace")
    if code == 0:
        message = ""  # success says nothing more
    request_id = str(envelope.get("request_id", "")) if envelope else ""
    answer = Answer(status, code, (message, request_id), tuple(secrets), data if isinstance(data, dict) else {})
    if answer.ok:
        return answer
    date = headers.get("date")
    return replace(
        answer,
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
    text = matcher.blank(text, _BLANK)
    text = _TOKEN_LIKE.sub("[...]", _SIGN.sub(r"\1\2[...]", text))
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def _bare(url: str) -> str:
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
