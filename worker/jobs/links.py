"""How many slices a store's link takes at once, by what it has carried. Pure; standard library only.

Goodput is taken from *answered* requests: an acknowledged byte shows only that a buffer on the way has it. As many
slices are in flight as the link carries in `TARGET_S`, so that each is answered long before its deadline, on any link.
"""

from __future__ import annotations

from dataclasses import dataclass

TARGET_S = 5.0
"""How long a slice should take while others share the link with it. Its deadline is 30 s and its time at low speed."""
KNOWN_FOR_S = 600.0
"""A link that has carried nothing for longer counts as unknown: it may be another one now."""
SLOW_S = 2.0
"""A store whose slices take longer leaves half of the slots to others."""


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

    @property
    def slow(self) -> bool:
        """Whether its slices hold a slot for so long that it may not have all of them."""
        return self.answer_s > SLOW_S

    def in_flight(self, size_bytes: int | None) -> int:
        """Return how many requests of this size may be in flight, one at least.

        What is smaller than usual, as the last slice of a file, or of a size not known yet, is taken for a usual one:
        what it would share the link with is not smaller.
        """
        carried_bytes = max(size_bytes or 0, self.answer_bytes, 1.0)
        return max(1, int(self.goodput_bytes_per_s * TARGET_S / carried_bytes))
