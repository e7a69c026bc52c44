from __future__ import annotations

import base64
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stores.cos_json.signing import ONCE, escape_key, file_id, plain_text, token

PUBLISHED_KEY = "bLcPnl88WU30VY57ipRhSePfPdOfSruK"  # a published sample, of no account
OWN_KEY = "exampleSecretKey"


@pytest.mark.parametrize(
    ("secret_key", "plain", "expected"),
    [
        (
            PUBLISHED_KEY,
            "a=200001&b=newbucket&k=AKIDUfLUEUigQiXqm7CVSspKJnuaiIKtxqAv&e=1437995704&t=1437995644&r=2081660421&f=",
            (
                "wHgvVkXpcZ3d+G0rOkAJml3R5NdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pudWFpSUt0eHFBdiZl"
                "PTE0Mzc5OTU3MDQmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPQ=="
            ),
        ),
        (
            PUBLISHED_KEY,
            (
                "a=200001&b=newbucket&k=AKIDUfLUEUigQiXqm7CVSspKJnuaiIKtxqAv&e=0&t=1437995644&r=2081660421"
                "&f=/200001/newbucket/tencent_test.jpg"
            ),
            (
                "rUbXBVKcp4tdZKkm5wz6//DqLIdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pudWFpSUt0eHFBdiZl"
                "PTAmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPS8yMDAwMDEvbmV3YnVja2V0L3RlbmNlbnRfdGVzdC5qcGc="
            ),
        ),
        (
            OWN_KEY,
            "a=10055004&k=AKIDEXAMPLE&e=1700003600&t=1700000000&r=123456789&f=&b=accesslog",
            (
                "fqO0VEJ9OqLp75X+A6+L5sattWJhPTEwMDU1MDA0Jms9QUtJREVYQU1QTEUmZT0xNzAwMDAzNjAwJnQ9MTcwMDAwMDAwMCZyPTEyMzQ1Njc4"
                "OSZmPSZiPWFjY2Vzc2xvZw=="
            ),
        ),
        (
            OWN_KEY,
            "a=10055004&k=AKIDEXAMPLE&e=0&t=1700000000&r=123456789&f=/10055004/accesslog/test%20folder/a.bin&b=accesslog",
            (
                "+DV+MLPAuhlYQwqZN/OIx7xNW7xhPTEwMDU1MDA0Jms9QUtJREVYQU1QTEUmZT0wJnQ9MTcwMDAwMDAwMCZyPTEyMzQ1Njc4OSZmPS8xMDA1"
                "NTAwNC9hY2Nlc3Nsb2cvdGVzdCUyMGZvbGRlci9hLmJpbiZiPWFjY2Vzc2xvZw=="
            ),
        ),
    ],
    ids=["published-reusable", "published-once", "own-reusable", "own-once"],
)
def test_tokens_equal_the_published_ones(secret_key: str, plain: str, expected: str) -> None:
    assert token(secret_key, plain) == expected


def test_the_plain_text_is_laid_out_as_the_vendors_examples_are() -> None:
    reusable = plain_text(
        appid="10055004",
        secret_id="AKIDEXAMPLE",
        bucket="accesslog",
        expires=1700003600,
        now=1700000000,
        nonce=123456789,
    )
    once = plain_text(
        appid="10055004",
        secret_id="AKIDEXAMPLE",
        bucket="accesslog",
        expires=ONCE,
        now=1700000000,
        nonce=123456789,
        file=file_id("10055004", "accesslog", "test folder/a.bin"),
    )
    assert reusable == "a=10055004&k=AKIDEXAMPLE&e=1700003600&t=1700000000&r=123456789&f=&b=accesslog"
    assert (
        once
        == "a=10055004&k=AKIDEXAMPLE&e=0&t=1700000000&r=123456789&f=/10055004/accesslog/test%20folder/a.bin&b=accesslog"
    )


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_token_carries_the_bytes_that_it_signs(secret_key: str, plain: str) -> None:
    decoded = base64.b64decode(token(secret_key, plain), validate=True)
    assert decoded[20:] == plain.encode()


def test_only_the_unreserved_characters_of_rfc_3986_and_slashes_stand_for_themselves() -> None:
    unreserved = "ABCXYZabcxyz0189-._~"
    assert escape_key(f"{unreserved}/{unreserved}") == f"{unreserved}/{unreserved}"
    assert escape_key("a b+c%d!*'();@&=,#[]") == "a%20b%2Bc%25d%21%2A%27%28%29%3B%40%26%3D%2C%23%5B%5D"
    assert escape_key("ü") == "%C3%BC"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_escaping_a_key_is_reversible_and_the_http_client_leaves_it_alone(key: str) -> None:
    escaped = escape_key(key)
    assert unquote(escaped) == key
    assert set(escaped) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%/")
    if ".." not in key and "./" not in f"{key}/":
        assert httpx.URL(f"http://store.test/files/v2/{escaped}").raw_path == f"/files/v2/{escaped}".encode()
