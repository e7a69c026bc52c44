from __future__ import annotations

import hashlib
import json
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stores.cos_json.sha1_state import Sha1Library, Sha1States, library

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def openssl() -> Sha1Library:
    found = library()
    assert found is not None, "Python's own libcrypto was not found: hashing before upload would be off on this machine"
    return found


def compressed(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """Compress one block by FIPS 180-4, for comparison."""

    def rotated(word: int, by: int) -> int:
        return ((word << by) | (word >> (32 - by))) & 0xFFFFFFFF

    words = list(struct.unpack(">16I", block))
    for t in range(16, 80):
        words.append(rotated(words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16], 1))
    a, b, c, d, e = state
    for t, word in enumerate(words):
        if t < 20:
            f, k = (b & c) | (~b & d), 0x5A827999
        elif t < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif t < 60:
            f, k = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        a, b, c, d, e = (rotated(a, 5) + f + e + k + word) & 0xFFFFFFFF, a, rotated(b, 30), c, d
    return tuple((old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d, e), strict=True))


def reference_state(data: bytes) -> str:
    state: tuple[int, ...] = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
    for at in range(0, len(data), 64):
        state = compressed(state, data[at : at + 64])
    return struct.pack("<5I", *state).hex()


def digested(openssl: Sha1Library, data: bytes, step: int, cuts: list[int]) -> Any:
    """Digest in pieces that end at the cuts (in steps); a new digester continues at each cut."""
    ends = [*sorted({min(cut * step, len(data) // step * step) for cut in cuts} | {0}), len(data)]
    digester = Sha1States(openssl, step_bytes=step)
    for start, end in pairwise(ends):
        progress = json.loads(json.dumps(digester.progress()))
        digester = Sha1States(openssl, progress, step_bytes=step)
        digester.update(memoryview(data)[start:end])
    return digester.digests()


def test_the_published_vector_of_three_parts(openssl: Sha1Library) -> None:
    data = bytes(i % 251 for i in range(251)) * (2_621_440 // 251 + 1)
    digests = digested(openssl, data[:2_621_440], MIB, [1])
    assert digests.algorithm == "sha1"
    assert digests.value == "d08b7e21afb7bc45b7bc7e265d812094252a14ac"
    assert digests.proof == [
        {"offset": 0, "datalen": MIB, "datasha": "463935c7eea4ca2705d0f481ecedb31f4d0f3a96"},
        {"offset": MIB, "datalen": MIB, "datasha": "657c72d675f1e792607e5c0a7405f66cbdb8c290"},
        {"offset": 2 * MIB, "datalen": 524288, "datasha": "d08b7e21afb7bc45b7bc7e265d812094252a14ac"},
    ]


def test_the_published_vector_of_two_zero_blocks(openssl: Sha1Library) -> None:
    digests = digested(openssl, bytes(128), 64, [])
    assert [part["datasha"] for part in digests.proof] == [
        "e504b492ed8c58564ecd1a6c683f05bf933af709",
        "0ae4f711ef5d6e9d26c611fd2c8c8ac45ecbf9e7",
    ]


@given(data=st.binary(max_size=1024), step=st.sampled_from([64, 128, 256]), cuts=st.lists(st.integers(0, 8)))
def test_states_equal_the_reference_after_any_interruptions(
    openssl: Sha1Library, data: bytes, step: int, cuts: list[int]
) -> None:
    digests = digested(openssl, data, step, cuts)
    assert digests.value == hashlib.sha1(data).hexdigest()  # noqa: S324 - the protocol's
    assert [(part["offset"], part["datalen"]) for part in digests.proof] == [
        (at, min(step, len(data) - at)) for at in range(0, len(data), step)
    ]
    for part in digests.proof[:-1]:
        assert part["datasha"] == reference_state(data[: part["offset"] + part["datalen"]])
    assert not digests.proof or digests.proof[-1]["datasha"] == digests.value


def test_the_length_is_restored_beyond_32_bits(openssl: Sha1Library) -> None:
    """512 MiB are 2^32 bits: a larger file also needs the counter's high word."""
    straight = Sha1States(openssl)
    block = memoryview(bytes(8 * MIB))
    for _ in range(512 // 8):
        straight.update(block)
    resumed = Sha1States(openssl, straight.progress())
    resumed.update(memoryview(b"end"))
    expected = hashlib.sha1(b"", usedforsecurity=False)
    for _ in range(512 // 8):
        expected.update(block)
    expected.update(b"end")
    assert resumed.digests().value == expected.hexdigest()


@pytest.mark.parametrize("make", [bytes, bytearray], ids=["read-only", "writable"])
def test_any_buffer_will_do(openssl: Sha1Library, make: type[bytes]) -> None:
    digester = Sha1States(openssl)
    digester.update(memoryview(make(b"abc")))
    assert digester.digests().value == "a9993e364706816aba3e25717850c26c9cd0d89d"


def test_nothing_can_follow_the_last_piece(openssl: Sha1Library) -> None:
    digester = Sha1States(openssl)
    digester.update(memoryview(b"odd"))
    with pytest.raises(ValueError, match="last"):
        digester.update(memoryview(b"more"))
    with pytest.raises(ValueError, match="last"):
        digester.progress()


def test_taking_the_digests_does_not_disturb_what_follows(openssl: Sha1Library) -> None:
    digester = Sha1States(openssl, step_bytes=64)
    digester.update(memoryview(bytes(64)))
    first = digester.digests()
    digester.update(memoryview(bytes(64)))
    assert first.value == hashlib.sha1(bytes(64)).hexdigest()  # noqa: S324 - the protocol's
    assert digester.digests().value == hashlib.sha1(bytes(128)).hexdigest()  # noqa: S324 - the protocol's


def test_a_wrong_openssl_fails_the_self_test(openssl: Sha1Library) -> None:
    class Forgetful(Sha1Library):
        """Skips every second block, as with another layout of the context."""

        def __init__(self) -> None:
            self.init, self.final = openssl.init, openssl.final
            self.calls = 0

        def update(self, *arguments: Any) -> None:
            self.calls += 1
            if self.calls % 2:
                openssl.update(*arguments)

    assert openssl.passes_self_test()
    assert not Forgetful().passes_self_test()
