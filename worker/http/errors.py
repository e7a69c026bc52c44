"""Which failures of a connection are the fault of its profile: the proxy, the certificates or a name in a URL is wrong.

Such a failure opens the breaker of the store, as a refused signature does. No job fails by it; the jobs wait.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

import httpx

from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_TEMPORARY = frozenset({408, 425, 429})
_REFUSED = re.compile(r"4[0-9]{2}\b")
_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""The peer closed the connection during the handshake: this says nothing of the certificate."""
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def misconfiguration(error: httpx.HTTPError | httpx.InvalidURL, *, by_proxy: bool) -> Mapping[str, str] | None:
    """Return code and advice if the profile is wrong; None if the failure is an outage.

    Args:
        error: what httpx raised.
        by_proxy: whether the profile has a proxy; a failed name lookup is then of the proxy's name.
    """
    causes = list(chain(error))
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return TLS
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return ENDPOINT
    if isinstance(error, httpx.ProxyError):
        refused = _REFUSED.match(
            str(error)
        )  # the proxy's status for CONNECT; with 5xx it cannot reach the store either
        return PROXY if refused and int(refused[0]) not in _TEMPORARY else None
    return _of_connecting(causes, by_proxy=by_proxy) if isinstance(error, httpx.ConnectError) else None


def _of_connecting(causes: Sequence[BaseException], *, by_proxy: bool) -> Mapping[str, str] | None:
    if any(isinstance(each, ssl.SSLError) and not isinstance(each, _CUT) for each in causes):
        return TLS
    lookups = [each for each in causes if isinstance(each, socket.gaierror)]
    if by_proxy and lookups:
        return PROXY
    invalid_name = any(isinstance(each, ValueError) for each in causes)
    return ENDPOINT if invalid_name or any(each.errno in _NO_SUCH_NAME for each in lookups) else None
