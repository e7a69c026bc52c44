"""What the clients of a run ask for: a seeded mix of jobs, and contents in which any mix-up shows."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the run's store answers to every init: small, so that two thousand slices are eight megabytes.
SLICE_BYTES = 4096
#: What a job asks for so that it gets a session however small its file is.
WISH_BYTES = 512 * 1024
_BLOCK_BYTES = 128


class Twist(StrEnum):
    """What is special about an errand."""

    NONE = "none"
    #: A stranger's object is at the key, and it may be replaced.
    OVERWRITE = "overwrite"
    #: A stranger's object is at the key, and it must stay: the job fails as `object_exists`.
    REFUSED = "refused"
    #: An operator cancels it some time after.
    CANCEL = "cancel"
    #: The file is not there at first; an operator puts it there and retries.
    LATE = "late"
    #: The whole file's digest is taken first.
    VERIFY = "verify"
    #: Submitted twice on purpose.
    REPEAT = "repeat"


#: (share of all jobs, fewest and most slices); no slices: the file goes up in one request.
_SIZES = ((0.60, 0, 0), (0.255, 1, 1), (0.14, 2, 50), (0.005, 100, 500))
_TWISTS = {
    Twist.OVERWRITE: 0.03, Twist.REFUSED: 0.03, Twist.CANCEL: 0.05, Twist.LATE: 0.01, Twist.VERIFY: 0.04,
    Twist.REPEAT: 0.05,
}  # fmt: skip
_GREAT_SLICES = 2000
_JOBS_A_GREAT_ONE = 5000


@dataclass(frozen=True, slots=True)
class Errand:
    """One job as its client knows it; all of it follows from the seed and the number."""

    seed: int
    number: int
    size_bytes: int
    in_slices: bool
    twist: Twist
    priority: int
    batched: bool
    tenant: str

    @property
    def key(self) -> str:
        """Where the object goes."""
        return f"run/{self.number // 1000:03d}/{self.number:06d}"

    @property
    def path(self) -> str:
        """The file below the root."""
        return f"{self.number // 1000:03d}/{self.number:06d}"

    @property
    def idempotency_key(self) -> str:
        """Under what its client asks."""
        return f"errand-{self.seed}-{self.number}"

    @property
    def document(self) -> dict[str, Any]:
        """The request's body."""
        return {
            "source": {"kind": "file", "root": "media", "path": self.path},
            "store": "main",
            "key": self.key,
            "overwrite": self.twist is Twist.OVERWRITE,
            "priority": self.priority,
            "labels": {"twist": str(self.twist)},
            "verify": "file" if self.twist is Twist.VERIFY else "auto",
            "slice_size": WISH_BYTES if self.in_slices else None,
        }

    def content(self) -> bytes:
        """The bytes of the file: each block names the job and its own place, so that no block fits elsewhere."""
        return _blocks(f"seed {self.seed} job {self.number}", self.size_bytes)

    def stranger(self) -> bytes:
        """The bytes of the object that somebody else has at the key."""
        return _blocks(f"seed {self.seed} stranger {self.number}", 1 + self.number % 3000)


def _blocks(name: str, size_bytes: int) -> bytes:
    tail = hashlib.sha256(name.encode()).hexdigest()
    blocks = (
        f"{name} byte {offset:010d} {tail}".ljust(_BLOCK_BYTES, ".").encode()
        for offset in range(0, size_bytes, _BLOCK_BYTES)
    )
    return b"".join(blocks)[:size_bytes]


def errands(seed: int, jobs: int) -> Iterator[Errand]:
    """The run's jobs in the order in which they are asked for: the same for the same seed and number of jobs."""
    chance = random.Random(f"errands {seed}")
    great_ones = {int((n + 0.5) * _JOBS_A_GREAT_ONE) for n in range(jobs // _JOBS_A_GREAT_ONE)}
    for number in range(jobs):
        slices = _GREAT_SLICES if number in great_ones else _slices(chance)
        twist = _twist(chance)
        if twist is Twist.CANCEL:
            slices = max(slices, chance.randint(1, 40))  # or it would mostly come too late
        last_bytes = chance.randint(1, SLICE_BYTES)
        size_bytes = (slices - 1) * SLICE_BYTES + last_bytes if slices else chance.randint(1, 4 * SLICE_BYTES)
        yield Errand(
            seed=seed,
            number=number,
            size_bytes=size_bytes,
            in_slices=slices > 0,
            twist=Twist.NONE if twist is Twist.VERIFY and slices else twist,
            priority=chance.choice((2, 5, 5, 5, 8)),
            batched=twist in {Twist.NONE, Twist.VERIFY} and chance.random() < 0.3,
            tenant=chance.choice(("acme", "acme", "bolt")),
        )


def _slices(chance: random.Random) -> int:
    [(_, fewest, most)] = chance.choices(_SIZES, [share for share, _, _ in _SIZES])
    return round(math.exp(chance.uniform(math.log(fewest), math.log(most)))) if fewest else 0


def _twist(chance: random.Random) -> Twist:
    rest = 1 - sum(_TWISTS.values())
    [twist] = chance.choices([*_TWISTS, Twist.NONE], [*_TWISTS.values(), rest])
    return twist
