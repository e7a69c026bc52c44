"""No secret passes `redact`: not raw, encoded or in pieces; the property is over random secrets and random texts."""

from __future__ import annotations

import base64
import html
import json
import random
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.leaks import leaked
from worker import urls
from worker.config import broker_url
from worker.db import url
from worker.telemetry import redact as redact_module
from worker.telemetry.redact import HIDDEN, hide, redact, redact_json, scrub, short_settings
from worker.telemetry.secret_matcher import SecretMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRETS = st.text(
    st.one_of(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), st.characters(codec="utf-8")),
    min_size=24,
    max_size=64,
)
FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "HTML": html.escape,
    "quote": quote,
    "quote, all": lambda text: quote(text, safe=""),
    "quote, as SQLAlchemy does": lambda text: quote(text, safe=" +"),
    "quote, small letters": lambda text: "".join(quote(c, safe="").lower() if not c.isalnum() else c for c in text),
    "quote, every byte": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "quote_plus": quote_plus,
    "quote twice": lambda text: quote(quote(text, safe=""), safe=""),
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64, after one": lambda text: base64.b64encode(b"u" + text.encode() + b"x").decode(),
    "Base64, after two": lambda text: base64.b64encode(b"u:" + text.encode()).decode(),
    "Base64, after three": lambda text: base64.b64encode(b"me:" + text.encode() + b"xy").decode(),
    "Base64 in a URL": lambda text: base64.urlsafe_b64encode(b"u:" + text.encode()).decode(),
    "Base64, quoted": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
}
"""The forms in which a text may contain a secret."""


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without secrets, and restore those of other tests."""
    monkeypatch.setattr(redact_module, "_known", SecretMatcher())
    monkeypatch.setattr(redact_module, "_short", {})
    return


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql+psycopg://sliceway:fake-secret-1@db/sliceway", "fake-secret-1"),
        ("cannot reach redis://:fake-secret-2@cache:6379/0", "fake-secret-2"),
        ("Authorization: Bearer fake-secret-3", "fake-secret-3"),
        ("authorization=fake-secret-3", "fake-secret-3"),
        ("{'Authorization': b'ZmFrZS1zZWNyZXQ='}", "ZmFrZS1zZWNyZXQ"),
        ("GET http://cos/files/v2/1/b/k?sign=ZmFrZQ%3D%3D&op=list", "ZmFrZQ"),
        ("https://s3/b/k?X-Amz-Signature=feedc0de&X-Amz-Credential=fake-id", "feedc0de"),
        ("https://s3/b/k?X-Amz-Signature=feedc0de&X-Amz-Credential=fake-id", "fake-id"),
        ("https://cos/k?q-signature=feedc0de&q-ak=fake-id", "fake-id"),
        ('{"secret_key": "fake-secret-4"}', "fake-secret-4"),
        ("the header was 'Bearer fake-secret-5'", "fake-secret-5"),
        ("Proxy-Authorization: Basic dTpw", "dTpw"),
        ("407 Proxy Authentication Required (Basic dXNlcjpmYWtlLXNlY3JldA==)", "dXNlcjpmYWtl"),
        ("407 you sent basic ZmFrZXNlY3JldDpmYWtl", "ZmFrZXNlY3JldDpmYWtl"),
        ("key slw_ZmFrZS1zZWNyZXQtZmFrZS1zZWNyZXQ was refused", "ZmFrZS1zZWNyZXQtZmFrZS1zZWNyZXQ"),
    ],
)
def test_no_secret_passes(text: str, secret: str) -> None:
    redacted = redact(text)
    assert secret not in redacted
    assert HIDDEN in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "design=blue",
        "http://host:8080/a/b",
        "slice.checkpointed number=7",
        "idempotency_key is 'a-1'",
        "mail me@host",
        "a basic setting",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_json_is_redacted_in_depth_and_by_name() -> None:
    given = {"a": [{"url": "http://c/k?sign=fake-1"}], "password": "x", "token": 7, "n": None}
    assert redact_json(given) == {"a": [{"url": "http://c/k?sign=***"}], "password": "***", "token": 7, "n": None}


@pytest.mark.parametrize("way", FORMS)
@settings(max_examples=30)
@given(secret=SECRETS, other=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_eight_characters_of_a_secret_pass(way: str, secret: str, other: str, before: str, after: str) -> None:
    matcher = SecretMatcher([other, secret])
    redacted = matcher.blank(before + FORMS[way](secret) + after, "\n")
    assert leaked(secret, redacted, beside=before + after) == []


@pytest.mark.parametrize("way", ["raw", "quote", "Base64", "Base64, after two", "Base64 in a URL"])
@settings(max_examples=50)
@given(
    secret=SECRETS, pieces=st.lists(st.integers(8, 24), min_size=1), between=st.sampled_from([" ", "\n", "', '", "\0"])
)
def test_no_piece_passes(way: str, secret: str, pieces: list[int], between: str) -> None:
    form, cut = FORMS[way](secret), []
    for size in pieces * len(form):
        cut.append(form[:size])
        form = form[size:]
    assert leaked(secret, SecretMatcher([secret]).blank(between.join(filter(None, cut)), "\n")) == []


@given(secret=SECRETS, text=st.text(st.characters(codec="ascii"), max_size=300))
def test_what_has_nothing_of_a_secret_stays(secret: str, text: str) -> None:
    """Only a run of eight characters of a secret is blanked, in a form that the test knows too."""
    redacted = SecretMatcher([secret]).blank(text, "")
    if redacted != text:
        assert leaked(secret, text) != []


def test_the_whole_of_a_secret_becomes_one_mark() -> None:
    hide("fake-literal-secret")
    assert redact("oops fake-literal-secret!") == f"oops {HIDDEN}!"
    assert redact("fake-lit and al-secret") == f"{HIDDEN} and {HIDDEN}"
    assert redact("Basic " + base64.b64encode(b"user:fake-literal-secret").decode()).startswith(f"Basic {HIDDEN}")


def test_a_short_secret_is_blanked_as_a_word_and_its_setting_named_once() -> None:
    hide("p%ss w", setting="SLICEWAY_BROKER_URL")
    hide("p%ss w", setting="SLICEWAY_BROKER_URL")
    hide("fake-literal-secret", setting="SLICEWAY_API_KEY")
    assert redact("a p%ss w and xp%ss w, P%25ss") == f"a {HIDDEN} and xp%ss w, P%25ss"
    assert redact("redis://:p%25ss%20w@h p%25ss+w") == f"redis://:{HIDDEN}@h {HIDDEN}"
    assert short_settings() == ["SLICEWAY_BROKER_URL"]


def test_an_error_loses_its_secrets_with_all_that_led_to_it() -> None:
    hide("fake-literal-secret")
    inner = KeyError("fake-literal-secret")
    outer = ValueError("no fake-literal-secret", 7)
    outer.__cause__, inner.__context__ = inner, outer  # a circular chain
    scrub(outer)
    assert (outer.args, inner.args) == (("no ***", 7), ("***",))


def test_a_search_costs_a_line_little_whatever_the_secrets() -> None:
    """The matcher searches a text every five characters, without a regular expression of all secrets."""
    chance = random.Random(7)
    matcher = SecretMatcher([base64.b64encode(chance.randbytes(30)).decode() for _ in range(200)])
    text = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=100_000))
    assert matcher.blank(text, "") == text


@pytest.mark.parametrize("example", [urls.PROXY_EXAMPLE, url.EXAMPLE, broker_url.EXAMPLE, broker_url.SENTINEL_EXAMPLE])
def test_the_example_in_an_advice_is_not_redacted(example: str) -> None:
    assert redact(f"it is no URL; write {example}") == f"it is no URL; write {example}"
