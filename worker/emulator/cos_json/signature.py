"""Verification of request signatures: a token holds plain text and its MAC."""

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

    from worker.emulator.core.targets import Target

_MAC_BYTES = 20
_MAX_VALIDITY_S = 92 * DAY_S


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of a signature whose MAC is right."""

    mac: bytes
    appid: str
    bucket: str
    secret_id: str
    expires_s: int
    signed_s: int
    fileid: str


def read_signature(token: str, secret_keys: Mapping[str, str]) -> Signature:
    """Parses a token and verifies its MAC.

    The MAC covers the plain text as received, so the order of the fields is free.

    Args:
        token: From the Authorization header or `?sign=`.
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
        signature = Signature(
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
    secret_key = secret_keys.get(signature.secret_id)
    if secret_key is None:
        raise CosError(-47)
    if not hmac.compare_digest(hmac.new(secret_key.encode(), plain, hashlib.sha1).digest(), mac):
        raise CosError(-48)
    return signature


def check_signature(signature: Signature, target: Target, *, now_s: float, one_time: bool) -> None:
    """Returns if the signature covers this request.

    Args:
        signature: From `read_signature`.
        target: The target of the request.
        now_s: Unix seconds.
        one_time: Whether the operation requires a one-time signature (e=0, exact file) or a reusable one.

    Raises:
        CosError: -70 other appid, -61 other bucket, -73 or -74 wrong kind, -76 or -63 file, -59 time.
    """
    if signature.appid != target.appid:
        raise CosError(-70)
    if signature.bucket != target.bucket:
        raise CosError(-61)
    resource = f"/{target.appid}/{target.bucket}/{target.path}"
    if one_time:
        if signature.expires_s != 0:
            raise CosError(-73)
        if not signature.fileid:
            raise CosError(-76)
        if resource not in _decodings(signature.fileid):
            raise CosError(-63)
        return
    if signature.expires_s == 0:
        raise CosError(-74)
    if not signature.signed_s < signature.expires_s or not now_s < signature.expires_s <= now_s + _MAX_VALIDITY_S:
        raise CosError(-59)
    if signature.fileid and not any(resource.startswith(each) for each in _decodings(signature.fileid)):
        raise CosError(-63)


def _decodings(fileid: str) -> tuple[str, str]:
    """The file id decoded and as it is: most clients percent-encode it, one does not."""
    return unquote(fileid), fileid


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"not a decimal number: {text[:24]!r}")
    return int(text)
