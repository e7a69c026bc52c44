"""The limits that a protocol has, and the rules over them. Pure, so that the API can refuse bad input.

Each protocol states its limits in a module of its own beside this one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.errors import Refused
from worker.urls import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

ATTRIBUTES_MAX_CHARS = 1024
LABELS_MAX = 32
LABEL_KEY_MAX_CHARS = 64
LABEL_VALUE_MAX_CHARS = 256
REQUEST_MAX_BYTES = 1 * MIB
BATCH_MAX_BYTES = 8 * MIB
BATCH_MAX_JOBS = 1000
DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ProtocolLimits:
    """The limits of one protocol; sizes in bytes.

    Attributes:
        slice_sizes: the sizes that an upload may request; the last slice of a file may be smaller.
        max_whole_bytes: the largest file that one request can carry.
        max_slice_bytes: the largest slice that a worker sends if the store names a size of its own.
        max_slices: the most slices of one upload; None if there is no limit.
        max_key_bytes: the longest key, in UTF-8.
        refused_key_chars: characters that a key must not contain.
        slice_digest: whether the store can check a digest of each slice (`verify: slice`).
        verify_slice_bytes: the slice size that `verify: file` requires; None if any size will do.
        digest: the algorithm (a name of `hashlib`) of the digest that the store keeps of an object, if it keeps one.
        max_digest_bytes: the largest file whose digest and proof an init can carry.
    """

    slice_sizes: tuple[int, ...]
    max_whole_bytes: int
    max_slice_bytes: int
    max_slices: int | None
    max_key_bytes: int
    refused_key_chars: frozenset[str]
    slice_digest: bool
    verify_slice_bytes: int | None
    digest: str | None
    max_digest_bytes: int


_DOTS = frozenset({".", ".."})


def normal_key(key: str, limits: ProtocolLimits) -> str:
    """Return the key as the store will have it.

    Raises:
        Refused: ``bad_key``: the key is empty, too long, leaves its folder or has characters that the store refuses.
    """
    if not key or key.startswith("/") or key.endswith("/") or "//" in key:
        raise _bad_key(key, "it is empty, or has a leading, doubled or trailing slash")
    if not _DOTS.isdisjoint(key.split("/")):
        raise _bad_key(key, "it has '.' or '..' as a part")
    if not key.isprintable():  # control characters, lone surrogates, line and paragraph separators
        raise _bad_key(key, "it has control characters")
    if not limits.refused_key_chars.isdisjoint(key):
        refused = sorted(limits.refused_key_chars.intersection(key))
        raise _bad_key(key, f"this store's protocol does not take {' '.join(refused)}")
    if "/ /" in key:
        raise _bad_key(key, "it has a part that is one space")
    if len(key.encode()) > limits.max_key_bytes:
        raise _bad_key(key, f"it is longer than {limits.max_key_bytes} bytes")
    return key


def _bad_key(key: str, why: str) -> Refused:
    short = key if len(key) <= 80 else key[:77] + "..."  # noqa: PLR2004 - what fits in a line
    return Refused(f"key {short!r} cannot be used: {why}", code="bad_key", advice="Choose another key.")


def canonical_target(*, protocol: str, endpoint: str | Endpoint, account: str, bucket: str, key: str) -> str:
    """Return the canonical name of a place: `cos-json://host[:port]/account/bucket/key`.

    Every profile that leads to the place gives the same name. The scheme is left out: the same bucket over http and
    https is one place.
    """
    return f"{protocol}://{_host_and_port(endpoint)}/{account}/{bucket}/{key}"


@functools.cache
def _host_and_port(endpoint: str | Endpoint) -> str:
    parts = Endpoint.of(endpoint)
    host = parts.host.lower()
    return host if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{parts.port}"


def check_slice_size(slice_bytes: int, limits: ProtocolLimits) -> int:
    """Return the size if an upload may request it.

    Raises:
        Refused: ``bad_slice_size``; names the sizes that may be requested.
    """
    if slice_bytes not in limits.slice_sizes:
        named = ", ".join(map(str, limits.slice_sizes))
        raise Refused(
            f"slice_size {slice_bytes} is not one of {named} bytes",
            code="bad_slice_size",
            advice="Leave slice_size out, or name one of these sizes.",
        )
    return slice_bytes
