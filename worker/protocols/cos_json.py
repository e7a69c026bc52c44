"""The limits of the COS JSON API ("v4").

Sources: the vendor's pages 436/6066 (simple upload), 436/6067 (slice init) and 436/8432 (codes). Where the API states
no limit, the figure is ours, and a comment gives the reason.
"""

from __future__ import annotations

from worker.protocols.spec import GIB, KIB, MIB, ProtocolLimits

LIMITS = ProtocolLimits(
    slice_sizes=(512 * KIB, 1 * MIB, 2 * MIB, 3 * MIB),
    max_whole_bytes=20 * MIB,
    max_slice_bytes=16 * MIB,  # ours: a worker holds up to 20 slices in memory
    max_slices=700_000,  # ours: a list of more slices would be longer than the driver reads
    max_key_bytes=850,
    refused_key_chars=frozenset('?*:|\\<>"'),
    slice_digest=False,
    verify_slice_bytes=1 * MIB,
    digest="sha1",
    max_digest_bytes=40 * GIB,  # ours: `uploadparts` has 95 bytes a MiB, and one form field should stay below 4 MiB
)
