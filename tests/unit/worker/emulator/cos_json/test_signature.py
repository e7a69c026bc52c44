"""Signatures: the published vectors verify, and each rule has its code."""

from __future__ import annotations

import base64
import hmac

import pytest

from worker.emulator.core.targets import Target
from worker.emulator.cos_json.errors import CosError
from worker.emulator.cos_json.signature import Signature, check_signature, read_signature

#: A sample key that was published with its tokens, and an example key.
SAMPLE_KEYS = {
    "AKIDUfLUEUigQiXqm7CVSspKJnuaiIKtxqAv": "bLcPnl88WU30VY57ipRhSePfPdOfSruK",
    "AKIDEXAMPLE": "exampleSecretKey",
}
NOW = 1_700_000_000
DAY = 86_400
VECTORS = {
    "reusable, bucket first": (
        (
            "wHgvVkXpcZ3d+G0rOkAJml3R5NdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pudWFpSUt0eHFBdiZlPT"
            "E0Mzc5OTU3MDQmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPQ=="
        ),
        ("200001", "newbucket", 1437995704, 1437995644, ""),
    ),
    "for one use, bucket first": (
        (
            "rUbXBVKcp4tdZKkm5wz6//DqLIdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pudWFpSUt0eHFBdiZlPT"
            "AmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPS8yMDAwMDEvbmV3YnVja2V0L3RlbmNlbnRfdGVzdC5qcGc="
        ),
        ("200001", "newbucket", 0, 1437995644, "/200001/newbucket/tencent_test.jpg"),
    ),
    "reusable, bucket last": (
        (
            "fqO0VEJ9OqLp75X+A6+L5sattWJhPTEwMDU1MDA0Jms9QUtJREVYQU1QTEUmZT0xNzAwMDAzNjAwJnQ9MTcwMDAwMDAwMCZyPTEyMzQ1Njc4OS"
            "ZmPSZiPWFjY2Vzc2xvZw=="
        ),
        ("10055004", "accesslog", 1700003600, 1700000000, ""),
    ),
    "for one use, bucket last": (
        (
            "+DV+MLPAuhlYQwqZN/OIx7xNW7xhPTEwMDU1MDA0Jms9QUtJREVYQU1QTEUmZT0wJnQ9MTcwMDAwMDAwMCZyPTEyMzQ1Njc4OSZmPS8xMDA1NT"
            "AwNC9hY2Nlc3Nsb2cvdGVzdCUyMGZvbGRlci9hLmJpbiZiPWFjY2Vzc2xvZw=="
        ),
        ("10055004", "accesslog", 0, 1700000000, "/10055004/accesslog/test%20folder/a.bin"),
    ),
}


@pytest.mark.parametrize(("token", "signature"), VECTORS.values(), ids=VECTORS.keys())
def test_known_tokens_verify(token: str, signature: tuple[object, ...]) -> None:
    read = read_signature(token, SAMPLE_KEYS)
    assert (read.appid, read.bucket, read.expires_s, read.signed_s, read.fileid) == signature


def token_of(plain: str, key: str = "fake-secret-key") -> str:
    return base64.b64encode(hmac.digest(key.encode(), plain.encode(), "sha1") + plain.encode()).decode()


PLAIN = f"a=1&k=id&e={NOW + 60}&t={NOW}&r=12345678901234567890&f=&b=bucket"


def code_of(token: str) -> int:
    with pytest.raises(CosError) as refusal:
        read_signature(token, {"id": "fake-secret-key"})
    assert refusal.value.status == 403
    return refusal.value.code


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", -81),
        ("not base64!", -5998),
        (token_of(""), -5998),
        (token_of(PLAIN.replace("&f=", "")), -5998),
        (token_of(PLAIN.replace("e=1", "e=+1")), -5998),
        (token_of(PLAIN.replace("k=id", "k=unknown")), -47),
        (token_of(PLAIN, key="fake-other-key"), -48),
    ],
)
def test_an_invalid_token_is_refused(token: str, code: int) -> None:
    assert code_of(token) == code


@pytest.mark.parametrize("position", range(0, 20 + len(PLAIN), 7))
def test_a_changed_token_is_never_accepted(position: int) -> None:
    raw = bytearray(base64.b64decode(token_of(PLAIN)))
    raw[position] ^= 1
    assert code_of(base64.b64encode(raw).decode()) in {-48, -47, -5998}


def signature(**fields: object) -> Signature:
    given: dict[str, object] = {"mac": b"", "appid": "1", "bucket": "bucket", "secret_id": "id", "fileid": ""}
    return Signature(**{**given, "expires_s": NOW + 60, "signed_s": NOW, **fields})  # type: ignore[arg-type]


def check(given: Signature, *, path: str = "a b/c.bin", one_time: bool = False) -> int:
    """The code of the refusal, or 0."""
    try:
        check_signature(given, Target("1", "bucket", path), now_s=NOW, one_time=one_time)
    except CosError as refusal:
        return refusal.code
    return 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"appid": "2"}, -70),
        ({"bucket": "other"}, -61),
        ({"expires_s": 0}, -74),
        ({"expires_s": NOW, "signed_s": NOW - 60}, -59),
        ({"expires_s": NOW + 60, "signed_s": NOW + 60}, -59),
        ({"expires_s": NOW + 90 * DAY}, 0),
        ({"expires_s": NOW + 100 * DAY}, -59),
        ({"fileid": "/1/bucket/"}, 0),
        ({"fileid": "/1/bucket/a%20b/"}, 0),
        ({"fileid": "/1/bucket/a%20b/c.bin"}, 0),
        ({"fileid": "/1/bucket/a b/c.bin"}, 0),
        ({"fileid": "/1/bucket/d"}, -63),
        ({"fileid": "/1/bucket/a%20b/c.bin/d"}, -63),
    ],
)
def test_a_reusable_signature_covers_its_prefix_for_its_time(fields: dict[str, object], code: int) -> None:
    assert check(signature(**fields)) == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"expires_s": 0, "fileid": "/1/bucket/a%20b/c.bin"}, 0),
        ({"expires_s": 0, "fileid": ""}, -76),
        ({"expires_s": 0, "fileid": "/1/bucket/a%20b/"}, -63),
        ({"fileid": "/1/bucket/a%20b/c.bin"}, -73),
    ],
)
def test_a_one_time_signature_names_the_exact_file(fields: dict[str, object], code: int) -> None:
    assert check(signature(**fields), one_time=True) == code


def test_a_path_with_a_percent_sign_may_be_signed_encoded_or_not() -> None:
    assert check(signature(fileid="/1/bucket/100%25.bin"), path="100%.bin") == 0
    assert check(signature(fileid="/1/bucket/100%25.bin"), path="100%25.bin") == 0
