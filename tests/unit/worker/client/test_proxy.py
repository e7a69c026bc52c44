"""The proxy between the command line and the API."""

from __future__ import annotations

import pytest

from worker.client.api import Client
from worker.client.proxy import proxy_for
from worker.errors import SettingsError
from worker.urls import Endpoint

PROXY = "http://proxy.example:3128"


def proxy(url: str, **environ: str) -> str | None:
    found = proxy_for(Endpoint.of(url), environ)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST.", "api.localhost", "[::1]", "0.0.0.0"],  # noqa: S104
)
@pytest.mark.parametrize("value", [PROXY, "socks5://proxy.example:1080", "nonsense:port"])
def test_loopback_never_goes_by_a_proxy(host: str, value: str) -> None:
    assert proxy(f"http://{host}:8080", HTTP_PROXY=value, ALL_PROXY=value) is None


def test_the_scheme_chooses_the_variable() -> None:
    environ = {"HTTPS_PROXY": "https://s.example", "all_proxy": "a.example:1"}
    assert proxy("https://api.example", **environ) == "https://s.example"
    assert proxy("http://api.example", **environ) == "http://a.example:1"
    assert proxy("http://api.example", http_proxy=PROXY, HTTP_PROXY="http://other.example") == PROXY
    assert proxy("http://api.example", HTTP_PROXY=" ") is None


@pytest.mark.parametrize(
    ("spared", "by_proxy"),
    [
        ("*", False),
        ("other.example, api.example", False),
        (".example", False),
        ("*.example", False),
        ("api.example:8080", False),
        ("API.EXAMPLE", False),
        ("api.example:1", True),
        ("pi.example", True),
        ("", True),
    ],
)
def test_no_proxy_spares_hosts_and_domains(spared: str, *, by_proxy: bool) -> None:
    assert (proxy("http://api.example:8080", HTTP_PROXY=PROXY, NO_PROXY=spared) is not None) == by_proxy


def test_no_proxy_spares_networks() -> None:
    assert proxy("http://10.1.2.3", HTTP_PROXY=PROXY, NO_PROXY="10.0.0.0/8") is None
    assert proxy("http://11.1.2.3", HTTP_PROXY=PROXY, NO_PROXY="10.0.0.0/8") == PROXY


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("socks5://user:fake-secret-1@h:1", "socks5 is not served"),
        ("http://user:fake-secret-1@h:many", "port"),
        ("http://h:1/path", "no path"),
        ("http://", "no host"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"https_proxy is wrong: .*{says}") as refused:
        proxy("https://api.example", https_proxy=value)
    assert "fake-secret-1" not in refused.value.message


@pytest.mark.parametrize("key", ["slw_fäke-secret", "slw_fake\nsecret", "slw_fake\x00"])
def test_a_key_that_no_header_can_hold_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(SettingsError, match="SLICEWAY_API_KEY is wrong"):
        Client.of({"SLICEWAY_API_KEY": key})
    Client.of({"SLICEWAY_API_KEY": "slw_fake-secret\n"}).http.close()
