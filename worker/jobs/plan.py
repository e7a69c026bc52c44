"""How a file is cut into slices. Pure; standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Plan:
    """A file cut into slices of one size; the last may be smaller. Sizes in bytes.

    Slice ``n`` is the bytes from ``n * slice_bytes`` on; the slices cover the file exactly and do not overlap.
    """

    size_bytes: int
    slice_bytes: int

    @property
    def total(self) -> int:
        """How many slices there are; none for an empty file."""
        return -(-self.size_bytes // self.slice_bytes)

    def length(self, number: int) -> int:
        """Return the size of slice ``number``."""
        return min(self.slice_bytes, self.size_bytes - number * self.slice_bytes)

    def numbers(self, held: Iterable[tuple[int, int]]) -> list[int]:
        """Return the numbers of the slices that a store holds whole, from (offset, size) pairs, ascending.

        A range that does not begin at a slice, or is not as long as its slice, counts as nothing.
        """
        whole = {
            offset // self.slice_bytes
            for offset, size in held
            if offset % self.slice_bytes == 0
            and 0 <= offset < self.size_bytes
            and size == self.length(offset // self.slice_bytes)
        }
        return sorted(whole)

    def bytes_of(self, numbers: Iterable[int]) -> int:
        """Return how many bytes these slices have together."""
        return sum(self.length(number) for number in numbers)


def goes_whole(size_bytes: int, *, requested: int | None, whole_bytes: int) -> bool:
    """Say whether a file goes in one request: a small one unless slices were wished for, and an empty one always.

    An empty file has no slices, and no protocol says what a session without any is.
    """
    return size_bytes == 0 or (requested is None and size_bytes <= whole_bytes)


def plan_of_unfinished(
    size_bytes: int,
    slice_bytes: int | None,
    held: Collection[tuple[int, int]],
    *,
    most_bytes: int,
    max_slices: int | None,
) -> Plan | None:
    """Return how to go on with an upload of the file that another client began; None if that is not possible.

    Args:
        size_bytes: the file's size.
        slice_bytes: what the store says that it was begun with, if it does; else the slices that are there show it.
        held: (offset, size) of these slices.
        most_bytes: the largest slice that a worker sends: it must hold it in memory.
        max_slices: the most slices that an upload may have; None for no limit.
    """
    if slice_bytes is None:
        slice_bytes = max((size for offset, size in held if offset + size < size_bytes), default=0)
        if any(offset % slice_bytes for offset, _ in held if slice_bytes):
            return None
    if not 0 < slice_bytes <= most_bytes:
        return None
    plan = Plan(size_bytes, slice_bytes)
    return plan if max_slices is None or plan.total <= max_slices else None


def choose_slice_bytes(
    size_bytes: int, *, requested: int | None, default: int, sizes: Sequence[int], max_slices: int | None
) -> int:
    """Return the slice size to ask the store for: the requested one, else the default, raised to fit the most slices.

    Args:
        size_bytes: the file's size.
        requested: what the user asked for; one of ``sizes``.
        default: what the store's profile says.
        sizes: what the protocol allows.
        max_slices: the most slices that an upload may have; None for no limit.
    """
    chosen = requested if requested is not None else default
    if max_slices is None or Plan(size_bytes, chosen).total <= max_slices:
        return chosen
    return next((size for size in sorted(sizes) if Plan(size_bytes, size).total <= max_slices), max(sizes))
