"""The signature of the COS JSON API. Pure. The token contains the signed plain text.

    plain = a=<appid>&k=<secret id>&e=<expiry>&t=<now>&r=<random>&f=<file id>&b=<bucket>
    token = Base64(HMAC-SHA1(secret key, plain) + plain)

The signature covers no method, header or body: a token gives access to the file (or bucket) until it expires.
"""

from __future__ import annotations

import base64
import hmac
from functools import lru_cache
from urllib.parse import quote

ONCE = 0
"""The expiry of a token that is valid for one request, for the file that it names."""


@lru_cache(maxsize=256)  # the slices of a job share one key, and escaping it costs as much as signing
def escape_key(key: str) -> str:
    """Return the key as in a URL and in a file id: each segment escaped by RFC 3986."""
    return quote(key, safe="/")


def file_id(appid: str, bucket: str, key: str) -> str:
    """Return the file id, which binds a token to one file."""
    return f"/{appid}/{bucket}/{escape_key(key)}"


def plain_text(*, appid: str, secret_id: str, bucket: str, expires: int, now: int, nonce: int, file: str = "") -> str:
    """Return the text to sign. Times are Unix seconds; ``expires`` is `ONCE` for a token for one request."""
    return f"a={appid}&k={secret_id}&e={expires}&t={now}&r={nonce}&f={file}&b={bucket}"


def token(secret_key: str, plain: str) -> str:
    """Return the value of the Authorization header for a plain text."""
    message = plain.encode()
    mac = hmac.digest(secret_key.encode(), message, "sha1")
    return base64.b64encode(mac + message).decode("ascii")
