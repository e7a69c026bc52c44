"""A certificate of a key that exists for the time of one test (P-256 and X.509, as far as needed)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
CURVE = bytes.fromhex("06082a8648ce3d030107")
EC_KEY = bytes.fromhex("06072a8648ce3d0201")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")

Point = tuple[int, int]


def added(one: Point | None, other: Point | None) -> Point | None:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, P) if one == other else (y2 - y1) * pow(x2 - x1, -1, P)
    x3 = (slope * slope - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def times(factor: int) -> Point:
    result, power = None, G
    while factor:
        if factor & 1:
            result = added(result, power)
        power = added(power, power) or G
        factor >>= 1
    assert result is not None
    return result


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1)
    return bytes([tag]) + (size if len(body) < 128 else bytes([0x80 | len(size)]) + size) + body


def integer(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def pem(kind: str, body: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(body).decode()}-----END {kind}-----\n"


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der(0x30, bytes.fromhex(oid), b"\x01\x01\xff" if critical else b"", der(0x04, value))


def self_signed(name: str) -> str:
    """Return key and certificate in PEM, good for an hour."""
    key = secrets.randbelow(N - 1) + 1
    x, y = times(key)
    public = b"\x04" + x.to_bytes(32) + y.to_bytes(32)
    who = der(0x30, der(0x31, der(0x30, bytes.fromhex("0603550403"), der(0x0C, name.encode()))))
    now = datetime.now(UTC)
    when = [der(0x17, (now + timedelta(hours=by)).strftime("%y%m%d%H%M%SZ").encode()) for by in (-1, 1)]
    extensions = [
        extension("0603551d11", der(0x30, der(0x82, name.encode()))),
        extension("0603551d13", der(0x30, b"\x01\x01\xff"), critical=True),
        extension("0603551d0f", bytes.fromhex("03020284"), critical=True),
        extension("0603551d0e", der(0x04, hashlib.sha256(public).digest()[:20])),
    ]
    body = der(
        0x30,
        der(0xA0, integer(2)),
        integer(secrets.randbits(64) + 1),
        ECDSA_SHA256,
        who,
        der(0x30, *when),
        who,
        der(0x30, der(0x30, EC_KEY, CURVE), der(0x03, b"\0", public)),
        der(0xA3, der(0x30, *extensions)),
    )
    nonce = secrets.randbelow(N - 1) + 1
    r = times(nonce)[0] % N
    s = pow(nonce, -1, N) * (int.from_bytes(hashlib.sha256(body).digest()) + r * key) % N
    certificate = der(0x30, body, ECDSA_SHA256, der(0x03, b"\0", der(0x30, integer(r), integer(s))))
    private = der(0x30, integer(1), der(0x04, key.to_bytes(32)), der(0xA0, CURVE), der(0xA1, der(0x03, b"\0", public)))
    return pem("EC PRIVATE KEY", private) + pem("CERTIFICATE", certificate)
