"""How many slices a store's link takes at once, by what it has carried. Pure; standard library only.

Goodput is taken from *answered* requests: an acknowledged byte shows only that a buffer on the way has it. As many
slices are in flight as the link carries in a few seconds, so that each is answered long before its deadline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KNOWN_FOR_S = 600.0
"""A link that has carried nothing for longer counts as unknown: it may be another one now."""


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of the link to a store.

    Attributes:
        goodput_bytes_per_s: bytes of answered requests by the time in which any was under way.
        answer_bytes: what one of them carried, on average.
        answer_s: what one of them took, on average; what the oldest under way has taken so far, if that is more.
    """

    goodput_bytes_per_s: float
    answer_bytes: float
    answer_s: float

    def in_flight(self, size_bytes: int | None, target_s: float) -> int:
        """Return how many requests of this size may be in flight, one at least, so that each takes ``target_s``.

        What is smaller than usual, as the last slice of a file, or of a size not known yet, is taken for a usual one:
        what it would share the link with is not smaller.
        """
        carried_bytes = max(size_bytes or 0, self.answer_bytes, 1.0)
        # rounded up: a store that only takes its time to answer shows with one more that it can have more
        return max(1, math.ceil(self.goodput_bytes_per_s * target_s / carried_bytes))
