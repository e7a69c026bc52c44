"""Checking the signature of a request: a MAC over plain text that travels with it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from worker.emulator.config import DAY_S
from worker.emulator.cos_json.errors import CosError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAC_BYTES = 20
_LONGEST_VALIDITY_S = 92 * DAY_S


@dataclass(frozen=True, slots=True)
class Signature:
    """What a genuine signature says."""

    mac: bytes
    appid: str
    bucket: str
    secret_id: str
    expires_s: int
    signed_s: int
    fileid: str


def read_signature(token: str, secret_keys: Mapping[str, str]) -> Signature:
    """The claim inside a token whose MAC is right.

    The MAC is checked over the plain text as it was received, so the order of its fields does not matter.

    Args:
        token: What the Authorization header or `?sign=` carried.
        secret_keys: secret id -> secret key.

    Raises:
        CosError: -81 empty, -5998 not a token, -47 unknown secret id, -48 wrong MAC.
    """
    if not token:
        raise CosError(-81)
    try:
        raw = base64.b64decode(token, validate=True)
        mac, plain = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        fields = dict(pair.split("=", 1) for pair in plain.decode().split("&"))
        claim = Signature(
            mac=mac,
            appid=fields["a"],
            bucket=fields["b"],
            secret_id=fields["k"],
            expires_s=_decimal(fields["e"]),
            signed_s=_decimal(fields["t"]),
            fileid=fields["f"],
        )
        _decimal(fields["r"])
    except (binascii.Error, ValueError, KeyError) as error:
        raise CosError(-5998, str(error)) from None
    secret_key = secret_keys.get(claim.secret_id)
    if secret_key is None:
        raise CosError(-47)
    if not hmac.compare_digest(hmac.new(secret_key.encode(), plain, hashlib.sha1).digest(), mac):
        raise CosError(-48)
    return claim


def check_signature(claim: Signature, *, appid: str, bucket: str, path: str, now_s: float, one_time: bool) -> None:
    """Passes if the claim covers this request.

    Args:
        claim: What the signature says.
        appid: The account of the request.
        bucket: The bucket of the request.
        path: The decoded path below the bucket, without a leading slash.
        now_s: Unix seconds.
        one_time: Whether the operation wants a signature that serves once (e=0, exact file), or a reusable one.

    Raises:
        CosError: -70 other appid, -61 other bucket, -73 or -74 the wrong kind, -76 or -63 the file, -59 the time.
    """
    if claim.appid != appid:
        raise CosError(-70)
    if claim.bucket != bucket:
        raise CosError(-61)
    resource = f"/{appid}/{bucket}/{path}"
    if one_time:
        if claim.expires_s != 0:
            raise CosError(-73)
        if not claim.fileid:
            raise CosError(-76)
        if resource not in _readings(claim.fileid):
            raise CosError(-63)
        return
    if claim.expires_s == 0:
        raise CosError(-74)
    if not claim.signed_s < claim.expires_s or not now_s < claim.expires_s <= now_s + _LONGEST_VALIDITY_S:
        raise CosError(-59)
    if claim.fileid and not any(resource.startswith(each) for each in _readings(claim.fileid)):
        raise CosError(-63)


def _readings(fileid: str) -> tuple[str, str]:
    """Most clients percent-encode the file id, one does not: it may be meant either way."""
    return unquote(fileid), fileid


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"not a decimal number: {text[:24]!r}")
    return int(text)
