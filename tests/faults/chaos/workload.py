"""The workload of a run: a seeded mix of jobs, with contents that reveal every mix-up."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The slice size that the run's store answers to every init: small, so that two thousand slices are eight megabytes.
SLICE_BYTES = 4096
#: The slice size that a job asks for, so that it gets a session however small its file is.
REQUESTED_SLICE_BYTES = 512 * 1024
_BLOCK_BYTES = 128


class Variant(StrEnum):
    """What is special about a request."""

    NONE = "none"
    #: Another client's object is at the key, and the job may replace it.
    OVERWRITE = "overwrite"
    #: Another client's object is at the key, and the job fails as `object_exists`.
    REFUSED = "refused"
    #: The operator cancels the job some time later.
    CANCEL = "cancel"
    #: The file is missing at first; the operator writes it and retries.
    LATE = "late"
    #: The job verifies the digest of the whole file.
    VERIFY = "verify"
    #: The client submits it twice.
    REPEAT = "repeat"


#: (share of all jobs, fewest and most slices); no slices: the file is uploaded in one request.
_SIZES = ((0.60, 0, 0), (0.255, 1, 1), (0.14, 2, 50), (0.005, 100, 500))
_TWISTS = {
    Variant.OVERWRITE: 0.03, Variant.REFUSED: 0.03, Variant.CANCEL: 0.05, Variant.LATE: 0.01, Variant.VERIFY: 0.04,
    Variant.REPEAT: 0.05,
}  # fmt: skip
_LARGE_SLICES = 2000
_JOBS_PER_LARGE_ONE = 5000


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The request for one job; all of it follows from the seed and the number."""

    seed: int
    number: int
    size_bytes: int
    in_slices: bool
    variant: Variant
    priority: int
    batched: bool
    tenant: str

    @property
    def key(self) -> str:
        """The object's key."""
        return f"run/{self.number // 1000:03d}/{self.number:06d}"

    @property
    def path(self) -> str:
        """The file below the root."""
        return f"{self.number // 1000:03d}/{self.number:06d}"

    @property
    def idempotency_key(self) -> str:
        """The request's idempotency key."""
        return f"request-{self.seed}-{self.number}"

    @property
    def document(self) -> dict[str, Any]:
        """The request's body."""
        return {
            "source": {"kind": "file", "root": "media", "path": self.path},
            "store": "main",
            "key": self.key,
            "overwrite": self.variant is Variant.OVERWRITE,
            "priority": self.priority,
            "labels": {"variant": str(self.variant)},
            "verify": "file" if self.variant is Variant.VERIFY else "auto",
            "slice_size": REQUESTED_SLICE_BYTES if self.in_slices else None,
        }

    def content(self) -> bytes:
        """The bytes of the file: each block contains the job's number and its own offset, so that no two are equal."""
        return _blocks(f"seed {self.seed} job {self.number}", self.size_bytes)

    def foreign_content(self) -> bytes:
        """The bytes of the object that another client has at the key."""
        return _blocks(f"seed {self.seed} foreign {self.number}", 1 + self.number % 3000)


def _blocks(name: str, size_bytes: int) -> bytes:
    tail = hashlib.sha256(name.encode()).hexdigest()
    blocks = (
        f"{name} byte {offset:010d} {tail}".ljust(_BLOCK_BYTES, ".").encode()
        for offset in range(0, size_bytes, _BLOCK_BYTES)
    )
    return b"".join(blocks)[:size_bytes]


def workload(seed: int, jobs: int) -> Iterator[JobRequest]:
    """The run's requests in order: the same for the same seed and number of jobs."""
    chance = random.Random(f"errands {seed}")  # with another text the same seed gives other jobs
    large = {int((n + 0.5) * _JOBS_PER_LARGE_ONE) for n in range(jobs // _JOBS_PER_LARGE_ONE)}
    for number in range(jobs):
        slices = _LARGE_SLICES if number in large else _slices(chance)
        variant = _twist(chance)
        if variant is Variant.CANCEL:
            slices = max(slices, chance.randint(1, 40))  # a short job would end before the cancel
        last_bytes = chance.randint(1, SLICE_BYTES)
        size_bytes = (slices - 1) * SLICE_BYTES + last_bytes if slices else chance.randint(1, 4 * SLICE_BYTES)
        yield JobRequest(
            seed=seed,
            number=number,
            size_bytes=size_bytes,
            in_slices=slices > 0,
            variant=Variant.NONE if variant is Variant.VERIFY and slices else variant,
            priority=chance.choice((2, 5, 5, 5, 8)),
            batched=variant in {Variant.NONE, Variant.VERIFY} and chance.random() < 0.3,
            tenant=chance.choice(("acme", "acme", "bolt")),
        )


def _slices(chance: random.Random) -> int:
    [(_, fewest, most)] = chance.choices(_SIZES, [share for share, _, _ in _SIZES])
    return round(math.exp(chance.uniform(math.log(fewest), math.log(most)))) if fewest else 0


def _twist(chance: random.Random) -> Variant:
    rest = 1 - sum(_TWISTS.values())
    [variant] = chance.choices([*_TWISTS, Variant.NONE], [*_TWISTS.values(), rest])
    return variant
