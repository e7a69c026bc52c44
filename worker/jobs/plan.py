"""How a file is cut into slices. Pure; standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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


def usable(size_bytes: int, slice_bytes: int, *, sizes: Sequence[int], max_slices: int | None) -> bool:
    """Say whether an upload that another client began in slices of this size can be gone on with.

    Args:
        size_bytes: the file's size.
        slice_bytes: what the upload was begun with; nothing holds another client to ``sizes``.
        sizes: what the protocol allows: the largest is what a worker must hold in memory.
        max_slices: the most slices that an upload may have; None for no limit.
    """
    if not 0 < slice_bytes <= max(sizes):
        return False
    return max_slices is None or Plan(size_bytes, slice_bytes).total <= max_slices


def choose_slice_bytes(
    size_bytes: int, *, wish: int | None, default: int, sizes: Sequence[int], max_slices: int | None
) -> int:
    """Return the slice size to ask the store for: the wish, else the default, raised to fit the most slices.

    Args:
        size_bytes: the file's size.
        wish: what the user asked for; one of ``sizes``.
        default: what the store's profile says.
        sizes: what the protocol allows.
        max_slices: the most slices that an upload may have; None for no limit.
    """
    chosen = wish if wish is not None else default
    if max_slices is None or Plan(size_bytes, chosen).total <= max_slices:
        return chosen
    return next((size for size in sorted(sizes) if Plan(size_bytes, size).total <= max_slices), max(sizes))
