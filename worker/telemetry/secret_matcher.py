"""Finds secrets in a text: raw, percent-encoded, in Base64, escaped, or any eight characters of one of these forms.

A peer may echo a piece of a secret, which a search for the whole does not find. The matcher finds every eight
consecutive characters of a form of a secret. Pure; standard library only.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WINDOW_CHARS = 8
"""So many consecutive characters of a secret are found."""
_QUAD_BYTES = 4
"""Eight consecutive characters contain four bytes that begin at a multiple of four. For a text without a secret it is
enough to look up these, as numbers: a quarter as many as the text has bytes."""
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_DECODINGS_MAX = 3
"""A URL in the query of a URL is encoded twice."""
_URL_SAFE = str.maketrans("+/", "-_")
_SEPARATOR = "\0"

Span = tuple[int, int]


class SecretMatcher:
    """Blanks known secrets in texts. Immutable."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare to find these secrets.

        Args:
            secrets: the matcher finds those shorter than eight characters only as whole words, because they may be
                part of ordinary words.
        """
        self.secrets = frozenset(filter(None, secrets))
        long = [secret for secret in self.secrets if len(secret) >= WINDOW_CHARS]
        forms = {form for secret in long for form in _forms(secret)}
        self._forms = _SEPARATOR.join(sorted(forms))
        self._quads = {quad for form in forms for quad in _quads_anywhere(_encoded(form))}
        short = {form for secret in self.secrets.difference(long) for form in {secret, *_percent_encoded(secret)}}
        words = "|".join(map(re.escape, sorted(short, key=len, reverse=True)))
        self._short = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])") if short else None

    def knowing(self, secrets: Iterable[str]) -> Self:
        """Return a matcher that also finds these."""
        more = self.secrets.union(filter(None, secrets))
        return self if more == self.secrets else type(self)(more)

    def blank(self, text: str, mark: str) -> str:
        """Return the text with ``mark`` instead of every secret and every piece of one."""
        # inline, without calls: most texts have no secret and are done after this
        raw = text.encode("utf-8", "surrogatepass")
        if "%" in text or not self._quads.isdisjoint(memoryview(raw)[: len(raw) & -_QUAD_BYTES].cast("I")):
            text = _blanked(text, self._found(text), mark)
        if self._short is not None:
            text = self._short.sub(lambda _: mark, text)
        return text

    def _found(self, text: str) -> list[Span]:
        spans = self._windows(text)
        if "%" in text:
            starts: list[int] = list(range(len(text) + 1))
            for _ in range(_DECODINGS_MAX):
                decoded, at = _decoded(text)
                if decoded == text:
                    break
                text, starts = decoded, [starts[each] for each in at]
                spans += [(starts[begin], starts[end]) for begin, end in self._windows(text)]
        return spans

    def _windows(self, text: str) -> list[Span]:
        """Return the spans of eight characters that are part of a form."""
        quads = _aligned_quads(_encoded(text))
        if self._quads.isdisjoint(quads):
            return []
        last = len(text) - WINDOW_CHARS
        begins: Iterable[int] = range(last + 1)
        if text.isascii():  # a byte is a character
            hits = [number * _QUAD_BYTES for number, quad in enumerate(quads) if quad in self._quads]
            begins = {begin for at in hits for begin in range(max(0, at - _QUAD_BYTES), min(at, last) + 1)}
        return [(begin, begin + WINDOW_CHARS) for begin in begins if text[begin : begin + WINDOW_CHARS] in self._forms]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _aligned_quads(raw: bytes) -> memoryview:
    return memoryview(raw)[: len(raw) & -_QUAD_BYTES].cast("I")


def _quads_anywhere(raw: bytes) -> Iterator[int]:
    for begin in range(_QUAD_BYTES):
        yield from _aligned_quads(raw[begin:])


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms that a secret may have in a text.

    `_found` also decodes percent-encoding in the text, because each library encodes other characters. The encoded
    forms here find pieces that are cut in the middle of an escape.
    """
    yield secret
    yield secret.replace(" ", "+")
    yield from _percent_encoded(secret)
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    for codec in ("utf-8", "latin-1"):
        raw = secret.encode(codec, "backslashreplace")
        yield repr(raw)[2:-1]
        for coded in _in_base64(raw):
            yield coded
            yield coded.translate(_URL_SAFE)


def _in_base64(raw: bytes) -> Iterator[str]:
    """Yield Base64 of the bytes, and the characters that depend on them alone inside a longer text."""
    yield base64.b64encode(raw).decode()
    for before in range(3):
        coded = base64.b64encode(bytes(before) + raw).decode()
        yield coded[(8 * before + 5) // 6 : 8 * (before + len(raw)) // 6]


def _percent_encoded(secret: str) -> set[str]:
    """Return the results of three usual functions, with escapes in upper and lower case."""
    raw = secret.encode("utf-8", "backslashreplace")
    encoded = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    return encoded | {_ESCAPES.sub(lambda run: run[0].lower(), each) for each in encoded}


def _decoded(text: str) -> tuple[str, list[int]]:
    """Decode percent-encoding; returns also the start of each character in the text, and the text's end."""
    pieces: list[str] = []
    starts: list[int] = []
    end = 0
    for run in _ESCAPES.finditer(text):
        pieces.append(text[end : run.start()])
        starts += range(end, run.start())
        at, end = run.start(), run.end()
        for char in bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"):
            pieces.append(char)
            starts.append(at)
            at += 3 * len(char.encode("utf-8", "surrogateescape"))
    pieces.append(text[end:])
    starts += range(end, len(text) + 1)
    return "".join(pieces), starts


def _blanked(text: str, spans: list[Span], mark: str) -> str:
    pieces: list[str] = []
    end = 0
    blanked_to = -1
    for begin, until in sorted(spans):
        if begin > blanked_to:
            pieces += (text[end:begin], mark)
        blanked_to = end = max(blanked_to, until)
    return "".join([*pieces, text[end:]])
