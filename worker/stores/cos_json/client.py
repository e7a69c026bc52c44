"""Sends one request to a COS JSON store, with signature, timeouts and guard, and reads a response of bounded size."""

from __future__ import annotations

import base64
import json
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from worker.config.authorities import unusable_authorities
from worker.errors import Interrupted, Stop, StoreUnusable, Transient, Unknown
from worker.http.connection import Transfer
from worker.http.errors import TLS
from worker.http.proxy import ProxyTransport
from worker.http.transport import HttpTransport
from worker.stores.cos_json.auth import CosJsonAuth, Signer
from worker.stores.cos_json.errors import RESIGNABLE, Kind, Op, failure, kind_of, no_response
from worker.stores.cos_json.form import Form
from worker.stores.cos_json.response import StoreResponse, parse_response
from worker.stores.cos_json.signing import file_id
from worker.telemetry.redact import HIDDEN, redact, scrub
from worker.telemetry.secret_matcher import SecretMatcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.urls import ProxyUrl

MAX_RESPONSE_BYTES = 1024 * 1024
MAX_LIST_BYTES = 32 * 1024 * 1024
"""A list has about 45 bytes a slice: this is a file of 2 TiB in slices of 3 MiB."""

_IDLE_TIMEOUT_S = 4.0
"""Servers close idle connections after 5 s (Apache, uvicorn, Node) to 75 s (nginx). The client closes them earlier, so
that a request rarely meets a connection that the server closes."""

STALL_S = 10.0
"""A link has stalled if no byte is acknowledged for this long."""

_MIN_TIMEOUT_S = 0.1
_HEADERS = [(b"User-Agent", b"sliceway"), (b"Accept", b"application/json"), (b"Accept-Encoding", b"identity")]
_parsed = lru_cache(maxsize=256)(httpx.URL)
"""The slices of a job share one URL, and parsing it costs as much as signing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A request to send.

    Attributes:
        fields: of the form, without `op`.
        content: the file's bytes; sent without a copy.
        accept: the kinds of response that are no failure for this request.
    """

    op: Op
    key: str
    fields: tuple[tuple[str, str], ...] = ()
    content: memoryview | None = None
    accept: frozenset[Kind] = frozenset()


class CosJsonClient:
    """Sends requests of one profile over pooled connections. Several threads may use it."""

    def __init__(
        self, profile: StoreProfile, transport: httpx.BaseTransport | None = None, stall_s: float = STALL_S
    ) -> None:
        self._profile = profile
        self._signer = Signer(profile)
        signing = (profile.secret_key.get_secret_value(), profile.secret_id.get_secret_value())
        self._secrets = (*signing, *_proxy_secrets(profile.proxy))
        self._transport = transport or _open_transport(profile)
        # httpx does not add the host to a request whose body is a stream
        self._base = f"{profile.endpoint}/files/v2"
        self._headers = [*_HEADERS, (b"Host", httpx.URL(str(profile.endpoint)).netloc)]
        connect_s = profile.connect_timeout_s
        timeouts = {"connect": connect_s, "read": profile.answer_timeout_s, "write": stall_s, "pool": connect_s}
        self._timeouts, self._finish_timeouts = timeouts, timeouts | {"read": profile.finish_timeout_s}
        # A slow store that has received a slice would not be faster if the slice were sent again. On a slow link, bytes
        # that a proxy has acknowledged may reach the store much later.
        self._content_timeouts = timeouts | {"read": math.inf}

    def call(self, operation: Operation, guard: Guard) -> StoreResponse:
        """Send a request, and once more if the store requires a new signature; return the accepted response.

        Raises:
            StoreError: the response is neither a success nor of an accepted kind.
            Interrupted: by the guard; the connection is closed.
        """
        response = self._send(operation, guard)
        if not response.ok and kind_of(response) in RESIGNABLE:
            learned = self._signer.learn(response.date)
            if learned or kind_of(response) is Kind.USED_TOKEN:
                response = self._send(operation, guard)
        if response.ok or kind_of(response) in operation.accept:
            return response
        raise failure(operation.op, operation.key, response)

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()

    def _send(self, operation: Operation, guard: Guard) -> StoreResponse:
        guard.check()
        auth = CosJsonAuth(self._signer, operation.key, once=operation.op is Op.DELETE)
        try:
            response = self._transport.handle_request(next(auth.auth_flow(self._request(operation, guard))))
            try:
                body = self._read(operation, response, guard)
            finally:
                response.close()  # closes the connection if the body was not read
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # the error quotes what the peer sent, and the peer may echo secrets of the request
            matcher = SecretMatcher((*self._secrets, auth.token))
            scrub(error, lambda text: redact(matcher.blank(text, HIDDEN)))
            raise no_response(operation.op, operation.key, error, by_proxy=self._profile.proxy is not None) from error
        return parse_response(response.status_code, response.headers, body, (*self._secrets, auth.token))

    def _request(self, operation: Operation, guard: Guard) -> httpx.Request:
        profile = self._profile
        url = f"{self._base}{file_id(profile.appid, profile.bucket, operation.key)}"
        timeouts = self._finish_timeouts if operation.op is Op.FINISH else self._timeouts
        extensions = {"timeout": _Timeouts(timeouts, guard), "transfer": Transfer(guard)}
        if operation.op is Op.STAT:
            return httpx.Request(
                "GET", _parsed(f"{url}?op={operation.op}"), headers=self._headers, extensions=extensions
            )
        if operation.op is Op.DELETE:
            headers = [*self._headers, (b"Content-Type", b"application/json")]
            document = json.dumps({"op": operation.op}).encode()
            return httpx.Request("POST", _parsed(url), headers=headers, content=document, extensions=extensions)
        form = Form((("op", operation.op), *operation.fields), operation.content)
        if operation.content is not None:
            transfer = Transfer(guard, operation.content.nbytes, form.content_offset_bytes)
            extensions = {"timeout": _Timeouts(self._content_timeouts, guard), "transfer": transfer}
        body = _GuardedBody(form, guard)
        length = b"%d" % form.length_bytes
        headers = [*self._headers, (b"Content-Type", form.content_type.encode("ascii")), (b"Content-Length", length)]
        return httpx.Request("POST", _parsed(url), headers=headers, stream=body, extensions=extensions)

    def _read(self, operation: Operation, response: httpx.Response, guard: Guard) -> bytes:
        max_bytes, body = MAX_LIST_BYTES if operation.op is Op.LIST else MAX_RESPONSE_BYTES, bytearray()
        for chunk in _decoded(response):
            try:
                guard.check()
            except Interrupted as interruption:
                # the store has done the work, so the response is still useful; a revoke must not be ignored
                if interruption.stop is Stop.REVOKED or guard.remaining_s() <= 0.0:
                    raise
            body += chunk
            if len(body) > max_bytes:
                kind = Unknown if operation.op in {Op.FINISH, Op.UPLOAD} else Transient
                raise kind(f"{operation.op} of {operation.key!r}: the store's answer is longer than {max_bytes} bytes")
        return bytes(body)


def _decoded(response: httpx.Response) -> Iterable[bytes]:
    """Return the bytes of the body; without httpx's decoders unless the store compresses it against our request."""
    if "Content-Encoding" in response.headers:
        return response.iter_bytes()
    assert isinstance(response.stream, httpx.SyncByteStream)
    return response.stream


def _ssl_context(profile: StoreProfile) -> ssl.SSLContext:
    """Return a context that trusts the profile's authorities, or the system's.

    Raises:
        StoreUnusable: the profile's file was readable when the worker started and is not now, or has no certificate.
    """
    if not profile.endpoint.tls:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP: saves the 50 ms that loading authorities takes
    try:
        return ssl.create_default_context(cafile=profile.ca_file)
    except OSError as error:
        why = unusable_authorities(profile.ca_file) or "cannot be used"
        raise StoreUnusable(f"[stores.{profile.name}] ca_file {profile.ca_file} {why}", **TLS) from error


def _open_transport(profile: StoreProfile) -> httpx.BaseTransport:
    """Return a transport to the store, through the profile's proxy if it has one."""
    if profile.proxy is None:
        return HttpTransport(
            str(profile.endpoint), _ssl_context(profile), idle_timeout_s=_IDLE_TIMEOUT_S, max_idle=profile.max_in_flight
        )
    return ProxyTransport(
        profile.proxy, _ssl_context(profile), idle_timeout_s=_IDLE_TIMEOUT_S, max_idle=profile.max_in_flight
    )


def _proxy_secrets(proxy: ProxyUrl | None) -> tuple[str, ...]:
    """Return the secrets that a proxy may echo: the password, and the value of its authorization header."""
    if proxy is None or proxy.password is None:
        return ()
    password = proxy.password.reveal()
    return password, base64.b64encode(f"{proxy.user or ''}:{password}".encode()).decode()


class _GuardedBody(httpx.SyncByteStream):
    """The form as a request's body; checks the guard before each piece."""

    def __init__(self, form: Form, guard: Guard) -> None:
        self._form, self._guard = form, guard

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._form.pieces():
            self._guard.check()
            yield piece  # type: ignore[misc]  # a socket takes a view as well as bytes


class _Timeouts(Mapping[str, float]):
    """The timeout of each phase in seconds, limited by the time until the guard's deadline.

    The transport reads a timeout when its phase begins. The phase `write` has no such limit, because the connection
    checks the guard while it sends.
    """

    def __init__(self, timeouts: Mapping[str, float], guard: Guard) -> None:
        self._timeouts, self._guard = timeouts, guard

    def __getitem__(self, phase: str) -> float:
        seconds = self._timeouts[phase]
        return seconds if phase == "write" else min(seconds, max(self._guard.remaining_s(), _MIN_TIMEOUT_S))

    def __iter__(self) -> Iterator[str]:
        return iter(self._timeouts)

    def __len__(self) -> int:
        return len(self._timeouts)
