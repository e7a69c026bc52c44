"""The parser of all URLs in settings: it makes frozen parts of them, which print no secret. Pure.

Each library gets the parts as its own arguments, so that no password is quoted and unquoted on its way. An error says
what is wrong and what to write. It repeats nothing of the URL but the scheme, because any other piece may be the
password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, quote, unquote

MAX_PORT = 65535
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OPTIONS = re.compile(r"\?[A-Za-z_][A-Za-z0-9_.-]*=")
_NOT_IN_A_HOST = re.compile(r"[\s<>\"\\^`{|}@]")


class UrlError(ValueError):
    """A URL cannot be used; the text says what is wrong and what to write, and repeats no secret."""


class Secret:
    """Text that `str` and `repr` do not show; `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Host:
    """A name or address, and an optional port."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of any URL, percent-decoded except for the path.

    Attributes:
        scheme: in lower case.
        user: None if the URL has none; likewise the password.
        hosts: none, one, or several that commas separate.
        path: as written, slash included.
        query: names and values in their order.
        fragment: whether the URL has one.
    """

    scheme: str
    user: str | None
    password: Secret | None
    hosts: tuple[Host, ...]
    path: str
    query: tuple[tuple[str, str], ...]
    fragment: bool

    @classmethod
    def of(cls, text: str, example: str) -> Self:
        """Parse a URL.

        Args:
            text: the URL.
            example: a correct URL for the error.

        Raises:
            UrlError: the text is no URL.
        """
        if any(not char.isprintable() for char in text):
            raise UrlError(f"it has a line break or another control character; write {example}")
        if (found := _SCHEME.match(text)) is None:
            raise UrlError(f"it is no URL, for no scheme:// begins it; write {example}")
        userinfo, location = _cut(text[found.end() :])
        location, hash_sign, _ = location.partition("#")
        location, _, query = location.partition("?")
        names, slash, path = location.partition("/")
        user, _, password = (userinfo or "").partition(":")
        return cls(
            scheme=found[1].lower(),
            user=decoded(user, example) or None,
            password=Secret(decoded(password, example)) if password else None,
            hosts=tuple(_host(each, example) for each in names.split(",")) if names else (),
            path=slash + path,
            query=tuple(parse_qsl(query)),
            fragment=bool(hash_sign),
        )

    def host(self, example: str) -> Host:
        """Return the only host.

        Raises:
            UrlError: the URL has no host or several.
        """
        if len(self.hosts) != 1:
            raise UrlError(f"it names {'several hosts' if self.hosts else 'no host'}; write {example}")
        return self.hosts[0]


def decoded(text: str, example: str) -> str:
    """Return the text percent-decoded.

    Raises:
        UrlError: the decoded bytes are not UTF-8.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UrlError(f"its percent-encoding is no UTF-8; write {example}") from None


def encoded(text: str) -> str:
    """Return the text with every reserved character percent-encoded."""
    return quote(text, safe="")


def _cut(rest: str) -> tuple[str | None, str]:
    """Separate user and password from the rest of a URL.

    An unencoded password is accepted if it can be separated: user and colon stand before any slash, and the password
    ends at the last @ before the query.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and ":" in authority:
        options = _OPTIONS.search(rest)
        authority = rest[: options.start()] if options else rest
    userinfo, at, _ = authority.rpartition("@")
    return (userinfo, rest[len(userinfo) + 1 :]) if at else (None, rest)


def _host(text: str, example: str) -> Host:
    name, port = text, ""
    if text.startswith("["):
        name, bracket, after = text[1:].partition("]")
        if not bracket or after[:1] not in {"", ":"}:
            raise UrlError(f"its host is no address in brackets; write {example}")
        colon, port = after[:1], after[1:]
    else:
        name, colon, port = text.rpartition(":") if ":" in text else (text, "", "")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT):
        raise UrlError(
            f"its port is no number from 1 to {MAX_PORT} (/ ? # in a password are %2F %3F %23); write {example}"
        )
    name = decoded(name, example)
    if not name or _NOT_IN_A_HOST.search(name) or (":" in name and not text.startswith("[")):
        raise UrlError(f"its host is no name and no address; write {example}")
    return Host(name, int(port) if port else None)


API_EXAMPLE = "https://host or http://host:port"
PROXY_EXAMPLE = "http://user:password@host:port or https://…"
_HTTP_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of an HTTP server (a store or the API), which has no secret."""

    scheme: str
    host: str
    port: int | None = None
    path: str = ""

    @classmethod
    def of(cls, url: str | Self) -> Self:
        """Parse the URL.

        Raises:
            UrlError: the scheme is not http:// or https://, or the URL has more than host, port and path.
        """
        if isinstance(url, cls):
            return url
        parts = Parts.of(str(url), API_EXAMPLE)
        if parts.scheme not in _HTTP_PORTS:
            raise UrlError(f"the scheme {parts.scheme} is not served; write {API_EXAMPLE}")
        host = parts.host(API_EXAMPLE)
        if parts.user is not None or parts.password is not None:
            raise UrlError(f"it has a user or a password, which are not sent; write {API_EXAMPLE}")
        if parts.query or "?" in str(url) or parts.fragment:
            raise UrlError(f"it has a query or a fragment; write {API_EXAMPLE}")
        return cls(parts.scheme, host.name, host.port, parts.path.rstrip("/"))

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        """Host and port, without the scheme's default port."""
        return str(Host(self.host, None if self.port == _HTTP_PORTS[self.scheme] else self.port))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self.host, self.port or _HTTP_PORTS[self.scheme]

    def __str__(self) -> str:
        return f"{self.scheme}://{Host(self.host, self.port)}{self.path}"


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """The URL of a proxy with its credentials; as text it has neither user nor password."""

    scheme: str
    host: str
    port: int | None = None
    user: str | None = None
    password: Secret | None = None

    @classmethod
    def of(cls, url: str | Self) -> Self:
        """Parse the URL.

        Raises:
            UrlError: the scheme is not http:// or https://, or the URL has a path, a query or a fragment.
        """
        if isinstance(url, cls):
            return url
        parts = Parts.of(str(url), PROXY_EXAMPLE)
        if parts.scheme not in _HTTP_PORTS:
            raise UrlError(f"a proxy of the kind {parts.scheme} is not served; write {PROXY_EXAMPLE}")
        host = parts.host(PROXY_EXAMPLE)
        if parts.path.strip("/") or parts.query or "?" in str(url) or parts.fragment:
            raise UrlError(f"a proxy has no path, query or fragment; write {PROXY_EXAMPLE}")
        return cls(parts.scheme, host.name, host.port, parts.user, parts.password)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in the URL."""
        return () if self.password is None else (self.password,)

    def __str__(self) -> str:
        return f"{self.scheme}://{Host(self.host, self.port)}"
