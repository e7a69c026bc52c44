from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stores.cos_json.response import StoreResponse, parse_response
from worker.stores.cos_json.signing import plain_text, token

SECRET_ID, SECRET_KEY = "AKIDfakesecretid", "fake-secret-key"
SECRETS = (SECRET_KEY, SECRET_ID)


def read(body: object, status: int = 200, **headers: str) -> StoreResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, SECRETS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>413</html>",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"code": ""}',
        b'{"code": "0x0"}',
        '{"code": "\u0660"}'.encode(),
        b'{"code": true}',
        b"[" * 9999,
    ],
)
def test_a_body_without_an_envelope_has_no_code_and_is_no_success(body: bytes) -> None:
    response = read(body)
    assert (response.code, response.ok, response.data) == (None, False, {})
    assert response.summary.startswith("HTTP 200, no JSON")


@given(st.integers(100, 999), st.binary(max_size=2000))
def test_any_bytes_can_be_read(status: int, body: bytes) -> None:
    summary = read(body, status).summary
    assert summary.isprintable()
    assert len(summary) < 500


def test_success_needs_both_code_and_status() -> None:
    assert read({"code": 0}).ok
    assert not read({"code": 0}, 500).ok
    assert not read({"code": -1}).ok


def test_a_code_may_come_as_text() -> None:
    assert read({"code": "0"}).ok
    assert read({"code": "-177"}, 409).code == -177


def test_data_that_is_no_object_counts_as_none() -> None:
    assert read({"code": 0, "data": [1]}).data == {}
    assert read({"code": 0, "data": None}).data == {}


def test_numbers_may_come_as_text() -> None:
    response = read(
        {"code": 0, "data": {"a": 7, "b": "7", "c": "x", "d": True, "e": None, "f": "9" * 5000, "g": "\u0667"}}
    )
    assert [response.integer(name) for name in "abcdefgh"] == [7, 7, None, None, None, None, None, None]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a9993e364706816aba3e25717850c26c9cd0d89d", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("A9993E364706816ABA3E25717850C26C9CD0D89D_1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("0" * 32, None),
        ("0" * 40, None),
        ("", None),
        (None, None),
        ("abc", None),
    ],
)
def test_only_a_real_sha_is_a_digest(given: str | None, expected: str | None) -> None:
    assert read({"code": 0, "data": {"sha": given}}).sha() == expected


def test_urls_are_shown_without_what_may_sign_them() -> None:
    response = read(
        {"code": 0, "data": {"access_url": "https://u:p@a.test/k%20?sign=abc#x", "url": 7, "ctime": 5, "mtime": "6"}}
    )
    assert response.details() == {"access_url": "https://a.test/k%20", "ctime": "5", "mtime": "6"}


def test_the_summary_contains_no_secret() -> None:
    plain = plain_text(appid="1", secret_id=SECRET_ID, bucket="b", expires=1, now=1, nonce=1)
    signed = token(SECRET_KEY, plain)
    said = f"sign {signed} of {plain} with {SECRET_KEY} at http://x/?sign=abc%3D Authorization: {signed}\nsecond line"
    for body in ({"code": -48, "message": said, "request_id": signed}, f"<p>{said}</p>".encode()):
        summary = read(body, 403).summary
        for secret in (signed, SECRET_ID, SECRET_KEY, "abc%3D", base64.b64encode(plain.encode()).decode()[:48]):
            assert secret not in summary
        assert "\n" not in summary


def test_an_empty_secret_does_not_change_the_summary() -> None:
    assert parse_response(403, {}, b'{"code": -48, "message": "no"}', ("",)).summary == "HTTP 403, code -48, no"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", timedelta(seconds=3)),
        ("0", timedelta(0)),
        ("99999999", timedelta(days=1)),
        ("Thu, 01 Jan 2026 00:00:30 GMT", timedelta(seconds=30)),
        ("Wed, 31 Dec 2025 00:00:00 GMT", timedelta(0)),
        ("soon", None),
        ("-5", None),
        ("9" * 5000, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str, expected: timedelta | None) -> None:
    response = read({"code": -71}, 503, retry_after=value, date="Thu, 01 Jan 2026 00:00:00 GMT")
    assert response.retry_after == expected
