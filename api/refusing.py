"""What the server answers by itself, before a request has come as far as the application. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.problems import MEDIA_TYPE, document, headers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.errors import Refused

Field = tuple[bytes, bytes]
_NEEDS_A_KEY = b"/v1/"
_ANNOUNCES_A_BODY = frozenset({b"content-length", b"transfer-encoding"})


def is_keyless(url: bytes, fields: Iterable[Field]) -> bool:
    """Say whether a request with a body has no key where one is needed.

    Args:
        url: as it stands in the request line.
        fields: the head's, names in small letters.
    """
    if not url.startswith(_NEEDS_A_KEY):
        return False
    announces = False
    for name, value in fields:
        if name == b"authorization":
            return False
        announces = announces or (name in _ANNOUNCES_A_BODY and value != b"0")
    return announces


def last_answer(refused: Refused, fields: Sequence[Field], url: bytes) -> bytes:
    """Return a refusal as the last answer of a connection.

    Args:
        refused: why.
        fields: what every answer has.
        url: of the request, if it is known already.
    """
    path = url.partition(b"?")[0].decode("ascii", "replace") if refused.status == HTTPStatus.UNAUTHORIZED else None
    content = json.dumps(document(refused, path)).encode()
    more = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers_of(refused),
    }
    every = [*fields, *((name.lower().encode(), value.encode()) for name, value in more.items())]
    lines = [b"%b: %b\r\n" % field for field in every]
    return b"".join([STATUS_LINE[refused.status], *lines, b"\r\n", content])
