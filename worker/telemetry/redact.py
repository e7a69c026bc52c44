"""Redacts secrets: every text that leaves a process goes through `redact` (log lines, rows, events, answers).

`hide` takes the secrets of the settings once. `redact` also blanks unknown values where secrets usually stand:
passwords in URLs, values of Authorization headers, signatures, keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from worker.telemetry.secret_matcher import WINDOW_CHARS, SecretMatcher

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
    # scheme://user:secret@host, and scheme://:secret@host; our own advice has "password" in its examples
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
    # Basic dTpw: Base64 has a digit, a capital after its first letter, or the padding, which an ordinary word has not
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
    """Redact these secrets from now on, and all pieces of eight characters; shorter secrets as whole words only.

    Args:
        secrets: from the settings. The process keeps each until its end.
        setting: the name of their setting, for `short_settings`.
    """
    global _known  # noqa: PLW0603 - one matcher a process, replaced as a whole: other threads read it
    _known = _known.knowing(secrets)
    if setting is not None and any(0 < len(secret) < WINDOW_CHARS for secret in secrets):
        _short[setting] = None


def short_settings() -> list[str]:
    """Return the settings whose secrets are so short that `redact` blanks them as whole words only."""
    return list(_short)


def redact(text: str) -> str:
    """Return the text without the secrets of `hide`, and without values where secrets usually stand."""
    text = _known.blank(text, HIDDEN)
    lowered = text.lower()
    for hint in _HINTS:  # a loop is faster than `any`, and most texts return here
        if hint in lowered:
            break
    else:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_json(value: Any) -> Any:
    """Return JSON with every string redacted, and with every value blanked whose name is that of a secret."""
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
    """Redact the arguments of an error and of its causes, for tracebacks that other code prints."""
    for each in chain(error):
        each.args = tuple(blank(arg) if isinstance(arg, str) else arg for arg in each.args)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, also causes that `from None` hides from tracebacks."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, redacted."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)
