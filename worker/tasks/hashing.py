"""A source's digests, saved on the way."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.errors import Permanent
from worker.stores.base import Digests

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.jobs.documents import DigestsDocument
    from worker.jobs.rows import InitProgress
    from worker.sources.base import Source
    from worker.stores.base import StoreDriver
    from worker.tasks.guard import ClaimGuard

HASH_PIECE_BYTES = 4 * 1024 * 1024
SAVE_HASHING_EVERY_S = 2.0


def hash_source(
    store: StoreDriver, source: Source, progress: InitProgress, guard: ClaimGuard, save: Callable[[InitProgress], None]
) -> Digests:
    """Take the digests that the store wants before init, going on where another worker left off.

    Args:
        store: whose digests.
        source: of the bytes.
        progress: of the init; its `hashing` or `digests` are where another worker left off.
        guard: asked between pieces; its deadline is moved on while bytes are read.
        save: stores new progress and extends the lease.

    Raises:
        Permanent: `verify_unavailable`: the file is too large for it, or this machine cannot take the digests.
    """
    if progress.digests is not None:
        return Digests(**progress.digests)
    begun = progress.hashing
    digester = store.digester(begun["state"] if begun else None)
    max_bytes = store.limits.max_digest_bytes
    if digester is None or source.size_bytes > max_bytes:
        why = (
            "this machine has no libcrypto that shows the states of SHA-1"
            if digester is None
            else (f"the file has {source.size_bytes} bytes, and the store takes digests of up to {max_bytes}")
        )
        raise Permanent(
            f"verify: file is not possible here: {why}",
            code="verify_unavailable",
            advice="Enqueue it with verify: auto, which checks the size and our mark.",
        )
    offset = begun["offset_bytes"] if begun else 0
    buffer = memoryview(bytearray(min(HASH_PIECE_BYTES, source.size_bytes)))
    saved_at, step_s = time.monotonic(), guard.remaining_s()
    while offset < source.size_bytes:
        guard.check()
        piece = buffer[: min(len(buffer), source.size_bytes - offset)]
        source.read_into(piece, offset)
        digester.update(piece)
        offset += len(piece)
        if time.monotonic() - saved_at >= SAVE_HASHING_EVERY_S and offset < source.size_bytes:
            save(replace(progress, hashing={"offset_bytes": offset, "state": digester.progress()}))
            guard.extend(step_s)
            saved_at = time.monotonic()
    digests = digester.digests()
    found: DigestsDocument = {"algorithm": digests.algorithm, "value": digests.value, "proof": digests.proof}
    save(replace(progress, hashing=None, digests=found))
    guard.extend(step_s)
    return digests
