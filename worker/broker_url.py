"""The broker's URL in parts, TLS included: what workers, dispatcher, Flower and doctor connect with. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlencode

from worker.urls import Host, Parts, Secret, UrlError, decoded, encoded

EXAMPLE = "redis://:password@host:6379/0 (rediss://… for TLS)"
REDIS, REDIS_TLS = "redis", "rediss"
_TLS = frozenset({REDIS_TLS, "amqps"})
_SEVERAL = re.compile(r";(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_PARSED = frozenset({REDIS, REDIS_TLS, "amqp", "amqps", "pyamqp", "librabbitmq"})
_PORTS = {REDIS: 6379, REDIS_TLS: 6379, "amqps": 5671}
AS_THEY_ARE = frozenset(
    (
        *("azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem", "gcpubsub"),
        *("kafka", "memory", "mongodb", "pgmq", "pyro", "qpid", "redis+socket", "sentinel", "slmq", "sqla"),
        *("sqlalchemy", "sqs", "zookeeper"),
    )
)
"""Schemes of kombu whose URLs have forms of their own: kombu gets them as they are."""
Verify = Literal["required", "optional", "none"]
_VERIFY: dict[str, Verify] = {
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
    "required": "required",
    "optional": "optional",
    "none": "none",
}
_FILES = {"ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file", "ssl_keyfile": "key_file"}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """How the broker is to prove who it is, and how we do.

    Attributes:
        verify: whether its certificate must be one that is trusted.
        check_hostname: whether it must be for the URL's host.
        ca_file: whom to trust beside the system's authorities.
        cert_file: our own certificate, and ``key_file`` its key, where the broker asks for one.
    """

    verify: Verify = "required"
    check_hostname: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def for_redis(self) -> dict[str, Any]:
        """Return the options as redis-py and kombu's Redis transport call them."""
        named = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
        checks = {"ssl_cert_reqs": self.verify, "ssl_check_hostname": self.check_hostname and self.verify != "none"}
        return checks | {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is and who asks; as text it has neither user, password nor options.

    Attributes:
        place: of Redis the number of its database, of RabbitMQ the virtual host.
        tls: None: it is not spoken.
        others: further brokers, one of which is used when this one does not answer.
        whole: the URL itself, where it is handed to kombu as it is.
    """

    scheme: str
    user: str | None = None
    password: Secret | None = None
    host: str = "localhost"
    port: int | None = None
    place: str = ""
    tls: BrokerTls | None = None
    others: tuple[BrokerUrl, ...] = ()
    whole: Secret | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str | BrokerUrl) -> BrokerUrl:
        """Parse it, or several that a semicolon parts, as Celery has it.

        Raises:
            UrlError: its scheme is none of kombu's, or a part of it is wrong.
        """
        if isinstance(url, BrokerUrl):
            return url
        first, *others = [_one(each) for each in _SEVERAL.split(str(url))]
        if any((each.scheme, each.tls) != (first.scheme, first.tls) for each in others):
            raise UrlError("its brokers differ in scheme or ssl_… options; give them the same")
        if others and first.scheme == "amqps":
            raise UrlError("several brokers are not served over amqps; write one, whose name leads to each of them")
        return replace(first, others=tuple(others))

    @property
    def is_redis(self) -> bool:
        """Whether it is reached over TCP and speaks Redis's protocol."""
        return self.scheme in {REDIS, REDIS_TLS}

    @property
    def address(self) -> Host:
        """Where it listens."""
        return Host(self.host, self.port or _PORTS.get(self.scheme, 5672))

    def for_kombu(self) -> str:
        """Return the URLs as kombu parses them.

        Those of Redis have all options of TLS: kombu verifies nothing where one with `rediss://` comes to it alone.
        """
        return ";".join(_text(each) for each in (self, *self.others))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must never show."""
        own = [secret for secret in (self.password, self.whole) if secret is not None]
        return (*own, *(secret for each in self.others for secret in each.secrets))

    def __str__(self) -> str:
        if self.whole is not None:
            return f"{self.scheme}://"
        return ";".join(f"{each.scheme}://{Host(each.host, each.port)}" for each in (self, *self.others))


def _text(url: BrokerUrl) -> str:
    if url.whole is not None:
        return url.whole.reveal()
    secret = f":{encoded(url.password.reveal())}" if url.password is not None else ""
    userinfo = f"{encoded(url.user or '')}{secret}@" if url.user or secret else ""
    bare = f"{url.scheme}://{userinfo}{Host(url.host, url.port)}/{encoded(url.place)}"
    if url.tls is None or not url.is_redis:
        return bare
    return f"{bare}?{urlencode({name: str(value) for name, value in url.tls.for_redis().items()})}"


def _one(text: str) -> BrokerUrl:
    scheme = text.partition("://")[0].lower()
    if "://" in text and (scheme in AS_THEY_ARE or scheme.partition("+")[0] in {"sqla", "sqlalchemy"}):
        password = None
        with suppress(UrlError):  # it may have a form of its own
            password = Parts.of(text, EXAMPLE).password
        return BrokerUrl(scheme, password=password, whole=Secret(text))
    parts = Parts.of(text, EXAMPLE)
    if parts.scheme not in _PARSED:
        raise UrlError(f"the scheme {parts.scheme} is not served; write {EXAMPLE}")
    if parts.fragment:
        raise UrlError(f"it has a fragment; in a password, # is written %23: {EXAMPLE}")
    host = parts.host(EXAMPLE) if parts.hosts else Host("localhost")
    place = decoded(parts.path[1:], EXAMPLE)
    if parts.scheme in {REDIS, REDIS_TLS} and place and not (place.isascii() and place.isdigit()):
        raise UrlError(f"what follows the host is no number of a Redis database; write {EXAMPLE}")
    return BrokerUrl(parts.scheme, parts.user, parts.password, host.name, host.port, place, _tls(parts))


def _tls(parts: Parts) -> BrokerTls | None:
    """Read the options of TLS, in Celery's spelling.

    Raises:
        UrlError: there is another option, or one that has another value, or the scheme has no TLS.
    """
    given: dict[str, Any] = {}
    for name, value in parts.query:
        if name in _FILES:
            given[_FILES[name]] = value
        elif name == "ssl_cert_reqs" and value in _VERIFY:
            given["verify"] = _VERIFY[value]
        elif name == "ssl_check_hostname" and value.lower() in _TRUTH:
            given["check_hostname"] = _TRUTH[value.lower()]
        elif name in {"ssl_cert_reqs", "ssl_check_hostname"}:
            wanted = "required, optional or none" if name == "ssl_cert_reqs" else "true or false"
            raise UrlError(f"its option {name} is none of {wanted}")
        else:
            known = ", ".join(["ssl_cert_reqs", "ssl_check_hostname", *_FILES])
            raise UrlError(f"it has an option that is not served; there are {known}")
    if parts.scheme in _TLS:
        return BrokerTls(**given)
    if given:
        tls = REDIS_TLS if parts.scheme == REDIS else "amqps"
        raise UrlError(f"it has options of TLS, which {parts.scheme}:// does not speak; write {tls}://")
    return None
