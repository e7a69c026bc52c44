"""What of a request that got no answer is the profile's fault: its proxy, its authorities, the names in its URLs.

Such a failure opens the store's breaker, as a refused signature does: no job fails by it, each waits with the reason.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

import httpx

from worker.config.authorities import unusable_authorities
from worker.errors import StoreUnusable
from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.config.profiles import StoreProfile

PROXY: Mapping[str, str] = {
    "code": "proxy_unusable",
    "advice": "Correct the store's proxy, or see why it lets nothing through. Waiting jobs go on by themselves.",
}
TLS: Mapping[str, str] = {
    "code": "tls_unusable",
    "advice": "Correct the store's ca_file, its certificate or its endpoint. Waiting jobs go on by themselves.",
}
ENDPOINT: Mapping[str, str] = {
    "code": "store_unusable",
    "advice": "Correct the store's endpoint, or see to the name service. Waiting jobs go on by themselves.",
}
_FOR_LATER = frozenset({408, 425, 429})
_REFUSED = re.compile(r"4[0-9]{2}\b")
_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""A handshake that was cut says nothing of the certificate."""
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def fault_of_profile(error: httpx.HTTPError | httpx.InvalidURL, *, by_proxy: bool) -> Mapping[str, str] | None:
    """Return code and advice if the profile is to blame, None if it is an outage.

    Args:
        error: what httpx raised.
        by_proxy: whether the profile has a proxy: it is then the proxy's name that is looked up here.
    """
    causes = list(chain(error))
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return TLS
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return ENDPOINT
    if isinstance(error, httpx.ProxyError):
        refused = _REFUSED.match(str(error))  # its answer to CONNECT; 5xx: it does not reach the store either
        return PROXY if refused and int(refused[0]) not in _FOR_LATER else None
    return _of_connecting(causes, by_proxy=by_proxy) if isinstance(error, httpx.ConnectError) else None


def _of_connecting(causes: Sequence[BaseException], *, by_proxy: bool) -> Mapping[str, str] | None:
    if any(isinstance(each, ssl.SSLError) and not isinstance(each, _CUT) for each in causes):
        return TLS
    lookups = [each for each in causes if isinstance(each, socket.gaierror)]
    if by_proxy and lookups:
        return PROXY
    odd_name = any(isinstance(each, ValueError) for each in causes)
    return ENDPOINT if odd_name or any(each.errno in _NO_SUCH_NAME for each in lookups) else None


def authorities(profile: StoreProfile) -> ssl.SSLContext:
    """Return whom to believe: those of the profile's file, or the system's.

    Raises:
        StoreUnusable: the file was there when the worker started, and cannot be read now, or has no certificate.
    """
    try:
        return ssl.create_default_context(cafile=profile.ca_file)
    except OSError as error:
        why = unusable_authorities(profile.ca_file) or "cannot be used"
        raise StoreUnusable(f"[stores.{profile.name}] ca_file {profile.ca_file} {why}", **TLS) from error
