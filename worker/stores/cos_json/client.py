"""One request to a COS JSON store: signed, timed, guarded, its answer read within bounds."""

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
from worker.stores.cos_json.errors import RESIGNED, Kind, Op, broken, failure, kind_of
from worker.stores.cos_json.form import Form
from worker.stores.cos_json.response import Answer, read_answer
from worker.stores.cos_json.signing import file_id
from worker.telemetry.redact import HIDDEN, redact, scrub
from worker.telemetry.secret_matcher import SecretMatcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.urls import ProxyUrl

ANSWER_MAX_BYTES = 1024 * 1024
LIST_MAX_BYTES = 32 * 1024 * 1024
"""A list names every slice, some 45 bytes each: this is a file of 2 TiB in slices of 3 MiB."""

_IDLE_TIMEOUT_S = 4.0
"""Servers close idle connections after 5 s (Apache, uvicorn, Node) to 75 s (nginx); ours are dropped before that, so
that hardly a request meets one that is being closed."""

STALL_S = 10.0
"""A link that carries no byte for so long stands still."""

_TIMEOUT_MIN_S = 0.1
_HEADERS = [(b"User-Agent", b"sliceway"), (b"Accept", b"application/json"), (b"Accept-Encoding", b"identity")]
_parsed = lru_cache(maxsize=256)(httpx.URL)
"""The slices of a job share one URL, and to parse it costs as much as to sign."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A request to be sent.

    Attributes:
        fields: of the form, without `op`.
        content: the file's bytes, sent from where they are.
        accept: what is an answer here and not a failure.
    """

    op: Op
    key: str
    fields: tuple[tuple[str, str], ...] = ()
    content: memoryview | None = None
    accept: frozenset[Kind] = frozenset()


class CosJsonClient:
    """Sends requests of one profile over pooled connections. Safe to be used by several threads."""

    def __init__(
        self, profile: StoreProfile, transport: httpx.BaseTransport | None = None, stall_s: float = STALL_S
    ) -> None:
        self._profile = profile
        self._signer = Signer(profile)
        signing = (profile.secret_key.get_secret_value(), profile.secret_id.get_secret_value())
        self._secrets = (*signing, *_given_to_proxy(profile.proxy))
        self._way = transport or _direct_or_by_proxy(profile)
        # httpx adds the host by itself, but not to a request whose body is a stream
        self._base = f"{profile.endpoint}/files/v2"
        self._headers = [*_HEADERS, (b"Host", httpx.URL(str(profile.endpoint)).netloc)]
        connect_s = profile.connect_timeout_s
        timeouts = {"connect": connect_s, "read": profile.answer_timeout_s, "write": stall_s, "pool": connect_s}
        self._timeouts, self._finish_timeouts = timeouts, timeouts | {"read": profile.finish_timeout_s}
        # A store that has taken a slice has a right to be slow: to send it again would make it no faster. With many of
        # them on a slow link, what a proxy before it has acknowledged may reach it only much later.
        self._content_timeouts = timeouts | {"read": math.inf}

    def call(self, operation: Operation, guard: Guard) -> Answer:
        """Send a request, and once more with a fresh signature if that may mend it; return its success.

        Raises:
            StoreError: anything but a success or what the request accepts.
            Interrupted: by the guard; the connection is closed.
        """
        answer = self._send(operation, guard)
        if not answer.ok and kind_of(answer) in RESIGNED:
            learned = self._signer.learn(answer.date)
            if learned or kind_of(answer) is Kind.USED_TOKEN:
                answer = self._send(operation, guard)
        if answer.ok or kind_of(answer) in operation.accept:
            return answer
        raise failure(operation.op, operation.key, answer)

    def close(self) -> None:
        """Close the pooled connections."""
        self._way.close()

    def _send(self, operation: Operation, guard: Guard) -> Answer:
        guard.check()
        auth = CosJsonAuth(self._signer, operation.key, once=operation.op is Op.DELETE)
        try:
            response = self._way.handle_request(next(auth.auth_flow(self._request(operation, guard))))
            try:
                body = self._read(operation, response, guard)
            finally:
                response.close()  # with the body unread, this closes the connection instead of returning it
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # what cannot be read as an answer is quoted: it may echo what we sent
            echoed = SecretMatcher((*self._secrets, auth.token))
            scrub(error, lambda text: redact(echoed.blank(text, HIDDEN)))
            raise broken(operation.op, operation.key, error, by_proxy=self._profile.proxy is not None) from error
        return read_answer(response.status_code, response.headers, body, (*self._secrets, auth.token))

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
        body = _Guarded(form, guard)
        length = b"%d" % form.length_bytes
        headers = [*self._headers, (b"Content-Type", form.content_type.encode("ascii")), (b"Content-Length", length)]
        return httpx.Request("POST", _parsed(url), headers=headers, stream=body, extensions=extensions)

    def _read(self, operation: Operation, response: httpx.Response, guard: Guard) -> bytes:
        most, body = LIST_MAX_BYTES if operation.op is Op.LIST else ANSWER_MAX_BYTES, bytearray()
        for chunk in _decoded(response):
            try:
                guard.check()
            except Interrupted as interruption:
                # what the store has done need not be repeated; but a revoke that nobody obeyed would be lost
                if interruption.stop is Stop.REVOKED or guard.remaining_s() <= 0.0:
                    raise
            body += chunk
            if len(body) > most:
                kind = Unknown if operation.op in {Op.FINISH, Op.UPLOAD} else Transient
                raise kind(f"{operation.op} of {operation.key!r}: the store's answer is longer than {most} bytes")
        return bytes(body)


def _decoded(response: httpx.Response) -> Iterable[bytes]:
    """Return the bytes of the body, past httpx's decoders where there is nothing to decode, as we ask for it."""
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


def _direct_or_by_proxy(profile: StoreProfile) -> httpx.BaseTransport:
    """Return the way to the store."""
    if profile.proxy is None:
        return HttpTransport(
            str(profile.endpoint), _ssl_context(profile), idle_timeout_s=_IDLE_TIMEOUT_S, max_idle=profile.max_in_flight
        )
    return ProxyTransport(
        profile.proxy, _ssl_context(profile), idle_timeout_s=_IDLE_TIMEOUT_S, max_idle=profile.max_in_flight
    )


def _given_to_proxy(proxy: ProxyUrl | None) -> tuple[str, ...]:
    """Return what a proxy may echo of our credentials: the password, and the value that its header has."""
    if proxy is None or proxy.password is None:
        return ()
    password = proxy.password.reveal()
    return password, base64.b64encode(f"{proxy.user or ''}:{password}".encode()).decode()


class _Guarded(httpx.SyncByteStream):
    """The form as a request's body: the guard is asked before each piece."""

    def __init__(self, form: Form, guard: Guard) -> None:
        self._form, self._guard = form, guard

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._form.pieces():
            self._guard.check()
            yield piece  # type: ignore[misc]  # a view is as good as bytes to the socket


class _Timeouts(Mapping[str, float]):
    """The seconds that each phase may take without a sign of life, none past the deadline.

    A phase reads its own when it begins, and less time is left then than there was for the phases before. While bytes
    are sent it is the guard itself that is asked for the deadline.
    """

    def __init__(self, timeouts: Mapping[str, float], guard: Guard) -> None:
        self._timeouts, self._guard = timeouts, guard

    def __getitem__(self, phase: str) -> float:
        seconds = self._timeouts[phase]
        return seconds if phase == "write" else min(seconds, max(self._guard.remaining_s(), _TIMEOUT_MIN_S))

    def __iter__(self) -> Iterator[str]:
        return iter(self._timeouts)

    def __len__(self) -> int:
        return len(self._timeouts)
