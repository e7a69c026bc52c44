"""The broker's URL in parts, TLS included. Workers, dispatcher, Flower and doctor connect with them. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote, urlencode

from worker.urls import Host, Parts, Secret, UrlError, decoded, encoded

EXAMPLE = "redis://:password@host:6379/0 (rediss://… for TLS)"
SOCKET_EXAMPLE = "redis+socket:///path/of/the/socket?virtual_host=0"
SENTINEL_EXAMPLE = "sentinel://:password@host:26379/0;sentinel://host2:26379"
REDIS, REDIS_TLS, REDIS_SOCKET, SENTINEL = "redis", "rediss", "redis+socket", "sentinel"
REDIS_SCHEMES = (REDIS, REDIS_TLS, REDIS_SOCKET, SENTINEL)
"""The schemes that lead to a server of Redis's protocol."""
_TLS = frozenset({REDIS_TLS, "amqps"})
_SEVERAL = re.compile(r";(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_PARSED = frozenset({*REDIS_SCHEMES, "amqp", "amqps", "pyamqp", "librabbitmq"})
_PORTS = {REDIS: 6379, REDIS_TLS: 6379, SENTINEL: 26379, "amqps": 5671}
UNPARSED_SCHEMES = frozenset(
    (
        *("azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem", "gcpubsub"),
        *("kafka", "memory", "mongodb", "pgmq", "pyro", "qpid", "slmq", "sqla", "sqlalchemy", "sqs", "zookeeper"),
    )
)
"""Schemes of kombu whose URLs have other forms: kombu gets the whole URL."""
Verify = Literal["required", "optional", "none"]
_VERIFY: dict[str, Verify] = {
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
    "required": "required",
    "optional": "optional",
    "none": "none",
}
FILE_OPTIONS = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
"""Field of `BrokerTls` -> the option of a URL and of redis-py that names the file."""
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """How the client checks the broker's certificate, and the client's own certificate.

    Attributes:
        verify: whether the broker's certificate must be trusted.
        check_hostname: whether the certificate must be for the URL's host.
        ca_file: authorities to trust beside the system's.
        cert_file: the client's certificate, if the broker asks for one; ``key_file`` is its key.
    """

    verify: Verify = "required"
    check_hostname: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def for_redis(self) -> dict[str, Any]:
        """Return the options of redis-py and of kombu's Redis transport."""
        checks = {"ssl_cert_reqs": self.verify, "ssl_check_hostname": self.check_hostname and self.verify != "none"}
        files = {option: getattr(self, name) for name, option in FILE_OPTIONS.items()}
        return checks | {option: path for option, path in files.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Master:
    """The name of the master at the sentinels, and the sentinels' own password."""

    name: str
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """The broker's address and credentials. As text it has neither user, password nor options.

    Attributes:
        place: the number of the database (Redis), or the virtual host (RabbitMQ).
        tls: None: without TLS.
        others: further brokers for a failover; further sentinels.
        socket: the path of the Unix socket; None: host and port.
        master: the server to ask the sentinels at host and port for; None: host and port are the server's own.
        whole: the unparsed URL, for kombu.
    """

    scheme: str
    user: str | None = None
    password: Secret | None = None
    host: str = "localhost"
    port: int | None = None
    place: str = ""
    tls: BrokerTls | None = None
    others: tuple[BrokerUrl, ...] = ()
    socket: str | None = None
    master: Master | None = None
    whole: Secret | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str | BrokerUrl) -> BrokerUrl:
        """Parse a URL, or several that semicolons separate, which is Celery's syntax.

        Raises:
            UrlError: the scheme is none of kombu's, or a part of the URL is wrong.
        """
        if isinstance(url, BrokerUrl):
            return url
        first, *others = [_one(each) for each in _SEVERAL.split(str(url))]
        if any((each.scheme, each.tls) != (first.scheme, first.tls) for each in others):
            raise UrlError("its brokers differ in scheme or ssl_… options; give them the same")
        if others and first.scheme in {"amqps", REDIS_SOCKET}:
            raise UrlError(
                f"several brokers are not served over {first.scheme}; write one, whose name leads to each of them"
            )
        if first.scheme == SENTINEL:
            first, *others = _with_same_credentials([first, *others])
        return replace(first, others=tuple(others))

    @property
    def is_redis(self) -> bool:
        """Whether the broker speaks Redis's protocol. Transport and message format depend on it."""
        return self.scheme in REDIS_SCHEMES

    @property
    def address(self) -> Host:
        """Host and port, with the scheme's default port."""
        return Host(self.host, self.port or _PORTS.get(self.scheme, 5672))

    def for_kombu(self) -> str:
        """Return the URLs in kombu's syntax.

        Those of Redis have all options of TLS: kombu verifies nothing for a `rediss://` URL without options.
        """
        return ";".join(_text(each) for each in (self, *self.others))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in the URL."""
        sentinel = self.master.password if self.master is not None else None
        own = [secret for secret in (self.password, sentinel, self.whole) if secret is not None]
        return (*own, *(secret for each in self.others for secret in each.secrets))

    def __str__(self) -> str:
        if self.whole is not None:
            return f"{self.scheme}://"
        if self.socket is not None:
            return f"{self.scheme}://{self.socket}"
        return ";".join(f"{each.scheme}://{Host(each.host, each.port)}" for each in (self, *self.others))


def _text(url: BrokerUrl) -> str:
    if url.whole is not None:
        return url.whole.reveal()
    secret = f":{encoded(url.password.reveal())}" if url.password is not None else ""
    userinfo = f"{encoded(url.user or '')}{secret}@" if url.user or secret else ""
    if url.socket is not None:
        return f"{url.scheme}://{userinfo}{quote(url.socket)}?virtual_host={url.place or 0}"
    bare = f"{url.scheme}://{userinfo}{Host(url.host, url.port)}/{encoded(url.place)}"
    if url.tls is None or not url.is_redis:
        return bare
    return f"{bare}?{urlencode({name: str(value) for name, value in url.tls.for_redis().items()})}"


def _one(text: str) -> BrokerUrl:
    scheme = text.partition("://")[0].lower()
    if "://" in text and (scheme in UNPARSED_SCHEMES or scheme.partition("+")[0] in {"sqla", "sqlalchemy"}):
        password = None
        with suppress(UrlError):  # the URL may have another form
            password = Parts.of(text, EXAMPLE).password
        return BrokerUrl(scheme, password=password, whole=Secret(text))
    parts = Parts.of(text, EXAMPLE)
    if parts.scheme not in _PARSED:
        raise UrlError(f"the scheme {parts.scheme} is not served; write {EXAMPLE}")
    if parts.fragment:
        raise UrlError(f"it has a fragment; in a password, # is written %23: {EXAMPLE}")
    if parts.scheme == REDIS_SOCKET:
        return _socket(parts)
    example = SENTINEL_EXAMPLE if parts.scheme == SENTINEL else EXAMPLE
    host = parts.host(example) if parts.hosts else Host("localhost")
    place = decoded(parts.path[1:], example)
    if parts.scheme in REDIS_SCHEMES and place and not _is_number(place):
        raise UrlError(f"what follows the host is no number of a Redis database; write {example}")
    return BrokerUrl(parts.scheme, parts.user, parts.password, host.name, host.port, place, _tls(parts))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _socket(parts: Parts) -> BrokerUrl:
    path = decoded(parts.path, SOCKET_EXAMPLE)
    if parts.hosts or path in {"", "/"}:
        raise UrlError(f"it names no path of a socket, which begins with a third slash; write {SOCKET_EXAMPLE}")
    options = dict(parts.query)
    place = options.pop("virtual_host", "").removeprefix("/")
    if options:
        raise UrlError(f"it has an option that is not served; there is virtual_host: {SOCKET_EXAMPLE}")
    if place and not _is_number(place):
        raise UrlError(f"its virtual_host is no number of a Redis database; write {SOCKET_EXAMPLE}")
    return BrokerUrl(parts.scheme, parts.user, parts.password, host="", place=place, socket=path)


def _with_same_credentials(sentinels: list[BrokerUrl]) -> list[BrokerUrl]:
    """Give all sentinels the user, password and database of the one that has them: kombu uses those of any sentinel.

    Raises:
        UrlError: the sentinels differ.
    """
    found = {(each.user, each.password) for each in sentinels if each.user or each.password} or {(None, None)}
    places = {each.place for each in sentinels if each.place} or {""}
    if len(found) > 1 or len(places) > 1:
        raise UrlError(f"its sentinels differ in user, password or database; write them once: {SENTINEL_EXAMPLE}")
    [(user, password)], [place] = found, places
    return [replace(each, user=user, password=password, place=place) for each in sentinels]


def _tls(parts: Parts) -> BrokerTls | None:
    """Read the options of TLS, by Celery's names.

    Raises:
        UrlError: an option or its value is unknown, or the scheme has no TLS.
    """
    given: dict[str, Any] = {}
    fields = {option: field for field, option in FILE_OPTIONS.items()}
    for name, value in parts.query:
        if name in fields:
            given[fields[name]] = value
        elif name == "ssl_cert_reqs" and value in _VERIFY:
            given["verify"] = _VERIFY[value]
        elif name == "ssl_check_hostname" and value.lower() in _TRUTH:
            given["check_hostname"] = _TRUTH[value.lower()]
        elif name in {"ssl_cert_reqs", "ssl_check_hostname"}:
            wanted = "required, optional or none" if name == "ssl_cert_reqs" else "true or false"
            raise UrlError(f"its option {name} is none of {wanted}")
        else:
            known = ", ".join(["ssl_cert_reqs", "ssl_check_hostname", *fields])
            raise UrlError(f"it has an option that is not served; there are {known}")
    if parts.scheme in _TLS:
        return BrokerTls(**given)
    if given:
        if parts.scheme == SENTINEL:
            raise UrlError("TLS by way of sentinels is not served; take its options out")
        tls = REDIS_TLS if parts.scheme == REDIS else "amqps"
        raise UrlError(f"it has options of TLS, which {parts.scheme}:// does not speak; write {tls}://")
    return None
