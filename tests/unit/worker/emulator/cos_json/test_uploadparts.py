"""SHA-1 states of prefixes: the vectors verify, and a wrong byte is found in its part."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.emulator.core.prefix_states import Part, digest_from_state, first_mismatch
from worker.emulator.cos_json.errors import CosError
from worker.emulator.cos_json.uploadparts import read_sha, read_uploadparts

MIB = 1024 * 1024
FILE = bytes(number % 251 for number in range(2_621_440))
STATES = [
    {"offset": 0, "datalen": MIB, "datasha": "463935c7eea4ca2705d0f481ecedb31f4d0f3a96"},
    {"offset": MIB, "datalen": MIB, "datasha": "657c72d675f1e792607e5c0a7405f66cbdb8c290"},
    {"offset": 2 * MIB, "datalen": 524_288, "datasha": "d08b7e21afb7bc45b7bc7e265d812094252a14ac"},
]
SHA = "d08b7e21afb7bc45b7bc7e265d812094252a14ac"


def read(given: Any, filesize: int = len(FILE)) -> list[Part]:
    return read_uploadparts(json.dumps(given), filesize_bytes=filesize, sha=SHA)


def check(data: bytes, parts: list[Part]) -> int | None:
    return first_mismatch(io.BytesIO(data), parts)  # type: ignore[arg-type]


def test_the_vector_verifies() -> None:
    assert check(FILE, read(STATES)) is None


def test_two_blocks_of_zeros_verify() -> None:
    parts = [
        Part(64, "e504b492ed8c58564ecd1a6c683f05bf933af709"),
        Part(128, "0ae4f711ef5d6e9d26c611fd2c8c8ac45ecbf9e7"),
    ]
    assert check(bytes(128), parts) is None


@pytest.mark.parametrize(("position", "end"), [(0, MIB), (MIB, 2 * MIB), (2 * MIB + 5, len(FILE))])
def test_a_wrong_byte_is_found_in_its_part(position: int, end: int) -> None:
    data = bytearray(FILE)
    data[position] ^= 1
    assert check(bytes(data), read(STATES)) == end


def test_a_wrong_state_is_found_even_if_the_bytes_are_right() -> None:
    wrong = [STATES[0], {**STATES[1], "datasha": "0" * 40}, STATES[2]]
    assert check(FILE, read(wrong)) == 2 * MIB


def test_a_file_that_ends_early_is_found() -> None:
    assert check(FILE[:-1], read(STATES)) == len(FILE)


@given(st.binary(max_size=300))
def test_the_state_before_the_first_block_is_that_of_the_empty_message(data: bytes) -> None:
    initial = "0123456789abcdeffedcba9876543210f0e1d2c3"
    assert digest_from_state(initial, 0) == hashlib.sha1(b"").hexdigest()  # noqa: S324 - the protocol's
    # A file of one part has no state to check, only its digest.
    assert check(data, [Part(len(data), hashlib.sha1(data).hexdigest())]) is None  # noqa: S324 - the protocol's


@pytest.mark.parametrize(
    "given",
    [
        [],
        {},
        None,
        [1],
        STATES[1:],
        STATES[:2],
        [STATES[0], STATES[2]],
        [STATES[0], {**STATES[1], "datalen": 0}, STATES[2]],
        [*STATES[:2], {**STATES[2], "datasha": "0" * 40}],
        [*STATES[:2], {**STATES[2], "datasha": "no digest"}],
        [*STATES[:2], {**STATES[2], "datalen": "524288"}],
    ],
)
def test_parts_that_do_not_add_up_are_refused(given: Any) -> None:
    with pytest.raises(CosError) as refusal:
        read(given)
    assert refusal.value.code == -5965


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(CosError) as refusal:
        read_uploadparts("[{", filesize_bytes=0, sha=SHA)
    assert refusal.value.code == -5965


def test_a_digest_is_forty_hex_digits_in_any_case() -> None:
    assert read_sha(SHA.upper()) == SHA
    assert read_sha("") == ""
    for wrong in (SHA[1:], "g" + SHA[1:]):
        with pytest.raises(CosError) as refusal:
            read_sha(wrong)
        assert refusal.value.code == -168
