"""Request paths: the target that they name, and the URLs of a target in a response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from worker.emulator.core.targets import Target
from worker.emulator.cos_json.errors import CosError, GatewayError, unknown_appid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.emulator.config import StoreAccount

_PREFIX = "/files/v2/"
_MAX_PATH_BYTES = 850
#: Characters that the vendor's clients refuse to send, and control characters.
_ILLEGAL = re.compile(r'[?*:|\\<>"\x00-\x1f\x7f]')


def addresses(target: Target, host: str) -> dict[str, str]:
    """The four addresses in the response about a complete object; three of them are URLs."""
    url = f"http://{host}{_PREFIX}{target.appid}/{target.bucket}/{quote(target.path)}"
    resource = f"/{target.appid}/{target.bucket}/{target.path}"
    return {"access_url": url, "source_url": url, "url": url, "resource_path": resource}


def target_of(raw_path: str, accounts: Sequence[StoreAccount]) -> Target:
    """The target that a percent-encoded request path names. Repeated slashes count as one.

    Raises:
        CosError: -133 no such bucket, -180 an illegal path.
        GatewayError: No such account, or not a path of the API.
    """
    if not raw_path.startswith(_PREFIX):
        raise GatewayError(404, b"<html><body><h1>404 Not Found</h1></body></html>\r\n", "text/html")
    try:
        decoded = unquote_to_bytes(raw_path[len(_PREFIX) :]).decode()
    except UnicodeDecodeError:
        raise CosError(-180, "the path is not UTF-8") from None
    appid, _, rest = decoded.partition("/")
    bucket, _, path = rest.partition("/")
    buckets = {name for account in accounts if account.appid == appid for name in account.buckets}
    if not buckets:
        raise unknown_appid()
    if bucket not in buckets:
        raise CosError(-133)
    path = re.sub("/+", "/", path).removeprefix("/")
    if _ILLEGAL.search(path) or {".", ".."} & set(path.split("/")) or len(path.encode()) > _MAX_PATH_BYTES:
        raise CosError(-180)
    return Target(appid, bucket, path)
