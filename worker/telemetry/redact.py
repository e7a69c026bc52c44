"""Nothing secret passes: every text that leaves a process goes through `redact` (log lines, rows, events, answers).

A process tells `hide` the secrets of its settings once. Beside those, what stands where secrets stand is blanked:
passwords in URLs, values of Authorization headers, signatures, keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from worker.telemetry.secret_matcher import WINDOW_CHARS, SecretMatcher

if TYPE_CHECKING:
    from collections.abc import Iterator


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HIDDEN = "***"
_SECRET_NAMES = frozenset(
    {
        *("authorization", "proxy-authorization", "password", "secret", "secret_id", "secret_key", "api_key"),
        *("sign", "signature", "basic_auth"),
    }
)
_NAMES = (
    r"authorization|password|passwd|secret[_-]?(?:id|key)?|api[_-]?key|access[_-]?key"
    r"|sign|signature|q-signature|q-ak|x-amz-(?:signature|credential|security-token)|x-cos-security-token"
)
_PATTERNS = (
    # scheme://user:secret@host, and scheme://:secret@host; "password" stands in the examples of our own advice
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:'\"]*:)(?!password@)[^\s/@'\"]+(?=@)", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Authorization: Bearer abc, 'Authorization': 'abc', sign=abc, "secret_key": "abc"
    (
        re.compile(
            rf"(?<![a-z0-9_])((?:{_NAMES})[\"']?\s*[:=]\s*(?:b(?=[\"']))?[\"']?(?:(?:bearer|basic)\s+)?)(?!\*\*\*|b[\"']|(?:bearer|basic)\s)[^\s\"',;&<>)\]}}]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer\s+)(?!\*\*\*)[a-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Basic dTpw: what follows is no word, but has a digit, a capital after its beginning, or an end of Base64
    (
        re.compile(r"(?i:\b(basic\s+))(?=[A-Za-z0-9+/_-]+(?:[0-9+/=_]|(?<=.)[A-Z]))[A-Za-z0-9+/_-]{3,}={0,2}"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\bslw_[A-Za-z0-9_-]{16,}"), f"slw_{HIDDEN}"),
)
_HINTS = ("://", "sign", "auth", "pass", "secret", "key", "q-ak", "x-amz-", "x-cos-", "bearer", "basic", "slw_")
_known = SecretMatcher()
_short: dict[str, None] = {}


def hide(*secrets: str, setting: str | None = None) -> None:
    """Let no eight characters of these secrets pass from now on; shorter ones not as a word of their own.

    Args:
        secrets: from the settings. Each is kept as long as the process lives.
        setting: where they come from, for `short_settings`.
    """
    global _known  # noqa: PLW0603 - one matcher a process, exchanged whole: other threads are reading it
    _known = _known.knowing(secrets)
    if setting is not None and any(0 < len(secret) < WINDOW_CHARS for secret in secrets):
        _short[setting] = None


def short_settings() -> list[str]:
    """Return the settings whose secrets are so short that they are blanked as whole words only."""
    return list(_short)


def redact(text: str) -> str:
    """Return the text without the secrets of `hide`, and without what stands where secrets stand."""
    text = _known.blank(text, HIDDEN)
    lowered = text.lower()
    for hint in _HINTS:  # a loop and no `any`: most texts end here
        if hint in lowered:
            break
    else:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_json(value: Any) -> Any:
    """Return JSON with every string in it redacted, and whatever a secret's name stands before."""
    match value:
        case str():
            return redact(value)
        case dict():
            return {
                name: HIDDEN if name.lower() in _SECRET_NAMES and part is not None else redact_json(part)
                for name, part in value.items()
            }
        case list() | tuple():
            return [redact_json(part) for part in value]
        case _:
            return value


def scrub(error: BaseException, blank: Callable[[str], str] = redact) -> None:
    """Take secrets out of the texts of an error and of all that led to it, for tracebacks that others print."""
    for each in chain(error):
        each.args = tuple(blank(arg) if isinstance(arg, str) else arg for arg in each.args)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it, also where a pool hid that from tracebacks (`from None`)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """Return an error's text as one line, free of secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)
