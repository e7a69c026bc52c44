"""SHA-1 states of the prefixes of a file, and their verification against its bytes.

A state is the internal state of SHA-1 after a prefix of the file, before the padding. `hashlib` gives only digests. The
digest of a prefix is the state after one more block, the padding, which `digest_from_state` computes: its result must
equal the digest of `hashlib`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.emulator.config import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO

_BLOCK_BYTES = 64
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Part:
    """One part: the state after byte `end_bytes`; the last part has the digest of the file instead."""

    end_bytes: int
    datasha: str


def first_mismatch(file: FileIO, parts: Sequence[Part]) -> int | None:
    """Reads the file and returns the end of the first wrong part, or None if all are right.

    A state off the block boundary of SHA-1 has no defined value and is not verified.
    """
    running = hashlib.sha1()  # noqa: S324 - the protocol's
    buffer = bytearray(MIB)
    position = 0
    with memoryview(buffer) as view:
        for number, part in enumerate(parts):
            while position < part.end_bytes:
                received = file.readinto(view[: min(MIB, part.end_bytes - position)])
                if not received:
                    return part.end_bytes
                running.update(view[:received])
                position += received
            if number == len(parts) - 1:
                right = running.hexdigest() == part.datasha
            else:
                right = position % _BLOCK_BYTES != 0 or digest_from_state(part.datasha, position) == running.hexdigest()
            if not right:
                return part.end_bytes
    return None


def digest_from_state(state: str, length_bytes: int) -> str:
    """The SHA-1 digest of a message that ends in this state.

    Args:
        state: Five 32-bit words, each little-endian, in hex.
        length_bytes: Length of the message, a multiple of 64.
    """
    words = struct.unpack("<5I", bytes.fromhex(state))
    padding = b"\x80" + bytes(55) + struct.pack(">Q", length_bytes * 8)
    return struct.pack(">5I", *_compress(words, padding)).hex()


def _compress(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """One block of SHA-1, as FIPS 180-4 defines it."""
    schedule = list(struct.unpack(">16I", block))
    for t in range(16, 80):
        schedule.append(_rotl(schedule[t - 3] ^ schedule[t - 8] ^ schedule[t - 14] ^ schedule[t - 16], 1))
    a, b, c, d, e = state
    for t, word in enumerate(schedule):
        mixed, constant = _ROUNDS[t // 20](b, c, d)
        a, b, c, d, e = (_rotl(a, 5) + mixed + e + constant + word) & _WORD, a, _rotl(b, 30), c, d
    return tuple((old + new) & _WORD for old, new in zip(state, (a, b, c, d, e), strict=True))


_ROUNDS = (
    lambda b, c, d: ((b & c) | (~b & d), 0x5A827999),
    lambda b, c, d: (b ^ c ^ d, 0x6ED9EBA1),
    lambda b, c, d: ((b & c) | (b & d) | (c & d), 0x8F1BBCDC),
    lambda b, c, d: (b ^ c ^ d, 0xCA62C1D6),
)


def _rotl(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _WORD
