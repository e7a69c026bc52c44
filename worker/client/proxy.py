"""The proxy to the API that the environment names, by the rules of curl."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from worker.config.credentials import hide_secrets
from worker.errors import SettingsError
from worker.urls import ProxyUrl, UrlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.urls import Endpoint


def proxy_for(url: Endpoint, environ: Mapping[str, str]) -> ProxyUrl | None:
    """Return the proxy for a URL; None for loopback, whatever the environment says.

    Raises:
        SettingsError: the proxy is wrong or of an unsupported kind; the message names the variable.
    """
    if is_loopback(url.host):
        return None
    names = (f"{url.scheme}_proxy", f"{url.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    name = next((name for name in names if environ.get(name, "").strip()), None)
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if name is None or any(_matches(entry.strip().lower(), url) for entry in no_proxy.split(",")):
        return None
    text = environ[name].strip()
    hide_secrets({name: text})
    try:
        return ProxyUrl.of(text if "://" in text else f"http://{text}")
    except UrlError as error:
        raise SettingsError(
            f"{name} is wrong: {error}", advice="Correct or unset it, or name the API's host in NO_PROXY."
        ) from None


def _matches(entry: str, url: Endpoint) -> bool:
    """Say whether an entry of NO_PROXY (a host, a domain, an address, a network or `*`) matches a URL."""
    if entry == "*":
        return True
    host, (_, port) = url.host.lower(), url.address
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # host or entry is a name
        name = entry.removesuffix(f":{port}").removeprefix("*").lstrip(".")
        return bool(name) and (host == name.strip("[]") or host.endswith(f".{name}"))


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address is this machine's loopback."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
