"""Finds secrets in a text: raw, percent-encoded, in Base64, escaped, or any eight characters of one of these.

A peer may echo a secret cut into pieces, so that a search for the whole finds nothing. Whatever has eight characters in
sequence in common with a form of a secret is found. Pure; standard library only.
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
"""So many characters of a secret in sequence may not show."""
_QUAD_BYTES = 4
"""Eight characters in sequence hold, whole, four bytes that begin at a multiple of four. Of a text without any secret
only these are looked up, as numbers, a quarter as many as it has bytes."""
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_DECODINGS_MAX = 3
"""A URL within the query of a URL is encoded twice."""
_URL_SAFE = str.maketrans("+/", "-_")
_SEPARATOR = "\0"

Span = tuple[int, int]


class SecretMatcher:
    """Knows some secrets, and takes them out of texts. Never changes."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare to find these secrets.

        Args:
            secrets: those shorter than eight characters are found whole and as a word of their own only: they would
                blot out parts of ordinary words.
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
        """Return a matcher that knows these, too."""
        more = self.secrets.union(filter(None, secrets))
        return self if more == self.secrets else type(self)(more)

    def blank(self, text: str, mark: str) -> str:
        """Return the text with ``mark`` in the place of every secret and every piece of one."""
        # most texts end here, so no call is spent on them
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
        """Return where eight characters of a form stand."""
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
    """Yield what stands in a text for a secret.

    Percent-encoding is also undone in the text, since each library does it for other characters; what is yielded of it
    here is for pieces that were cut in the middle of an escape.
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
    """Yield Base64 of the bytes alone, and the characters that they alone decide inside a longer text."""
    yield base64.b64encode(raw).decode()
    for before in range(3):
        coded = base64.b64encode(bytes(before) + raw).decode()
        yield coded[(8 * before + 5) // 6 : 8 * (before + len(raw)) // 6]


def _percent_encoded(secret: str) -> set[str]:
    """Return what three usual functions make of it, with escapes in capitals and in small letters."""
    raw = secret.encode("utf-8", "backslashreplace")
    encoded = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    return encoded | {_ESCAPES.sub(lambda run: run[0].lower(), each) for each in encoded}


def _decoded(text: str) -> tuple[str, list[int]]:
    """Undo percent-encoding; returns where each character of the result began, and the text's end."""
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
