"""The database's URL in parts: what libpq calls each of them is what every connection gets. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from worker.urls import MAX_PORT, Host, Parts, Secret, UrlError, decoded

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = "postgresql+psycopg://user:password@host:5432/database"
SCHEMES = frozenset({"postgresql+psycopg", "postgresql", "postgres", "postgres+psycopg"})
LIBPQ = frozenset(
    (
        *("application_name", "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name"),
        *("gssdelegation", "gssencmode", "gsslib", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle"),
        *("keepalives_interval", "krbsrvname", "load_balance_hosts", "max_protocol_version", "min_protocol_version"),
        *("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope", "options", "passfile"),
        *("replication", "require_auth", "requirepeer", "scram_client_key", "scram_server_key", "service"),
        *("servicefile", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode"),
        *("sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslkeylogfile", "sslmode", "sslnegotiation"),
        *("sslpassword", "sslrootcert", "sslsni", "target_session_attrs", "tcp_user_timeout"),
    )
)
"""The options that libpq has, beside those that are parts of their own; a test compares them with its own list."""
_SECRET_OPTIONS = frozenset({"sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"})


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where the database is, and the user that connects; as text it has neither user, password nor options.

    Attributes:
        user: None: whom libpq takes.
        password: None: what libpq finds (`PGPASSWORD`, a password file).
        hosts: tried one after the other; none: where libpq looks.
        database: None: which libpq takes.
        options: other parameters of libpq by their names, such as `sslmode`.
    """

    user: str | None
    password: Secret | None
    hosts: tuple[Host, ...]
    database: str | None
    options: Mapping[str, str] = field(repr=False, hash=False)

    @classmethod
    def of(cls, url: str | Self) -> Self:
        """Parse it.

        Raises:
            UrlError: it is not PostgreSQL's, or a part of it is wrong.
        """
        if isinstance(url, cls):
            return url
        parts = Parts.of(str(url), EXAMPLE)
        if parts.scheme not in SCHEMES:
            raise UrlError(f"the scheme {parts.scheme} is not served; write {EXAMPLE}")
        if parts.fragment:
            raise UrlError(f"it has a fragment; in a password, # is written %23: {EXAMPLE}")
        options = _joined(parts.query)
        password = options.pop("password", None)
        made = cls(
            user=options.pop("user", parts.user),
            password=parts.password if password is None else Secret(password),
            hosts=_hosts(parts, options),
            database=options.pop("dbname", decoded(parts.path[1:], EXAMPLE)) or None,
            options=options,
        )
        for name in options.keys() - LIBPQ:  # left out of the message: it may be the rest of a password
            near = difflib.get_close_matches(name, LIBPQ, 1)
            hint = f"; the nearest that it has is {near[0]}" if near else ""
            raise UrlError(f"it has an option that libpq does not have{hint}")
        return made

    def keywords(self) -> dict[str, str]:
        """Return the parts by libpq's names, of which SQLAlchemy's and psycopg's connections are made alike."""
        ports = [str(host.port or "") for host in self.hosts]
        named = {
            "user": self.user,
            "password": self.password and self.password.reveal(),
            "host": ",".join(host.name for host in self.hosts),
            "port": ",".join(ports) if any(ports) else None,
            "dbname": self.database,
        }
        return {name: value for name, value in named.items() if value} | dict(self.options)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must never show."""
        others = tuple(Secret(value) for name, value in self.options.items() if name in _SECRET_OPTIONS)
        return others if self.password is None else (self.password, *others)

    def __str__(self) -> str:
        return f"postgresql://{','.join(map(str, self.hosts))}/{self.database or ''}"


def _joined(query: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the query by names; of a name that comes several times the values are joined as libpq reads them."""
    joined: dict[str, str] = {}
    for name, value in query:
        separator = " " if name == "options" else ","
        joined[name] = (
            f"{joined[name]}{separator}{value}" if name in joined and name in {"host", "port", "options"} else value
        )
    return joined


def _hosts(parts: Parts, options: dict[str, str]) -> tuple[Host, ...]:
    """Take hosts and ports out of the options, where they stand for those of the URL itself.

    They are written as libpq has it (`host=a,b&port=1,2`) or as SQLAlchemy has it (`host=a:1&host=b:2`).
    """
    hosts = parts.hosts
    if (listed := options.pop("host", None)) is not None:
        hosts = tuple(_listed(each, hosts) for each in listed.split(","))
    if (ports := options.pop("port", None)) is None:
        return hosts
    numbers = [_port(each) for each in ports.split(",")]
    if len(numbers) == 1:
        numbers *= max(1, len(hosts))
    if len(numbers) != max(1, len(hosts)):
        raise UrlError(f"it has another number of ports than of hosts; write {EXAMPLE}")
    return tuple(Host(host.name, number) for host, number in zip(hosts or (Host(""),), numbers, strict=True))


def _listed(text: str, named: tuple[Host, ...]) -> Host:
    name, colon, port = text.rpartition(":")
    if not colon or text.startswith("/") or ":" in name:  # a socket's folder, or an IPv6 address
        return Host(text, named[0].port if named else None)
    return Host(name, _port(port))


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= MAX_PORT):
        raise UrlError(f"its port is no number from 1 to {MAX_PORT}; write {EXAMPLE}")
    return int(text)
