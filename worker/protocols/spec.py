"""What each protocol allows: slice sizes, keys, part counts. Pure, so that the API can refuse bad input.

Source of the COS JSON figures: the vendor's pages 436/6066 (simple upload), 436/6067 (slice init) and 436/8432 (codes).
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
    """The bounds of one protocol; sizes in bytes.

    Attributes:
        slice_sizes: the sizes that the protocol names; the last slice of a file may be smaller.
        whole_bytes: the largest file that one request can take.
        slice_most_bytes: the largest slice that a worker sends where the store names a size of its own: it holds up to
            20 of them in memory.
        max_slices: the most slices of one upload; None where the protocol states none.
        key_bytes: the longest key, in UTF-8.
        key_refused: characters that a key may not have.
        slice_digest: whether the store can check a digest of each slice (`verify: slice`).
        verify_slice_bytes: the slice size that whole-file verification (`verify: file`) forces; None if any will do.
    """

    slice_sizes: tuple[int, ...]
    whole_bytes: int
    slice_most_bytes: int
    max_slices: int | None
    key_bytes: int
    key_refused: frozenset[str]
    slice_digest: bool
    verify_slice_bytes: int | None


PROTOCOLS: Mapping[str, ProtocolLimits] = {
    "cos-json": ProtocolLimits(
        slice_sizes=(512 * KIB, 1 * MIB, 2 * MIB, 3 * MIB),
        whole_bytes=20 * MIB,
        slice_most_bytes=16 * MIB,
        max_slices=700_000,  # the protocol states none; the list of more would be longer than the driver reads
        key_bytes=850,
        key_refused=frozenset('?*:|\\<>"'),
        slice_digest=False,
        verify_slice_bytes=1 * MIB,
    ),
}


_DOTS = frozenset({".", ".."})


def normal_key(key: str, protocol: str) -> str:
    """Return the key as the store will have it, or say why it cannot be one.

    Raises:
        Refused: ``bad_key``, for a key that is empty, too long, leaves its folder or has characters the store refuses.
    """
    limits = PROTOCOLS[protocol]
    if not key or key.startswith("/") or key.endswith("/") or "//" in key:
        raise _bad_key(key, "it is empty, or has a leading, doubled or trailing slash")
    if not _DOTS.isdisjoint(key.split("/")):
        raise _bad_key(key, "it has '.' or '..' as a part")
    if not key.isprintable():  # control characters, lone surrogates, line and paragraph separators
        raise _bad_key(key, "it has control characters")
    if not limits.key_refused.isdisjoint(key):
        refused = sorted(limits.key_refused.intersection(key))
        raise _bad_key(key, f"this store's protocol does not take {' '.join(refused)}")
    if "/ /" in key:
        raise _bad_key(key, "it has a part that is one space")
    if len(key.encode()) > limits.key_bytes:
        raise _bad_key(key, f"it is longer than {limits.key_bytes} bytes")
    return key


def _bad_key(key: str, why: str) -> Refused:
    shown = key if len(key) <= 80 else key[:77] + "..."  # noqa: PLR2004 - what fits in a line
    return Refused(f"key {shown!r} cannot be used: {why}", code="bad_key", advice="Choose another key.")


def canonical_target(*, protocol: str, endpoint: str | Endpoint, account: str, bucket: str, key: str) -> str:
    """Name the place itself, the same through whatever profile: `cos-json://host[:port]/account/bucket/key`.

    The scheme is left out: the same bucket over http and https is one place.
    """
    return f"{protocol}://{_host_and_port(endpoint)}/{account}/{bucket}/{key}"


@functools.cache
def _host_and_port(endpoint: str | Endpoint) -> str:
    parts = Endpoint.of(endpoint)
    host = parts.host.lower()
    return host if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{parts.port}"


def check_slice_size(slice_bytes: int, protocol: str) -> int:
    """Return the size if the protocol has it.

    Raises:
        Refused: ``bad_slice_size``, naming the sizes that can be asked for.
    """
    sizes = PROTOCOLS[protocol].slice_sizes
    if slice_bytes not in sizes:
        named = ", ".join(str(size) for size in sizes)
        raise Refused(
            f"slice_size {slice_bytes} is not one of {named} bytes",
            code="bad_slice_size",
            advice="Leave slice_size out, or name one of these sizes.",
        )
    return slice_bytes
