"""Slices larger than usual, and responses with fewer fields."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from tests.integration.emulator.client import MIB, SLICE, outcome

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = os.urandom(2 * SLICE + 12_345)


def test_the_slice_size_of_the_server_is_in_force(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(forced_slice_size=MIB, serial_upload=True)
    data = os.urandom(MIB + 1)
    begun = cos.init("a.bin", len(data), slice_size=SLICE).json()["data"]
    assert (begun["slice_size"], begun["serial_upload"]) == (MIB, 1)
    assert outcome(cos.send("a.bin", begun["session"], MIB, data[MIB:])) == (400, -4024)
    assert outcome(cos.send("a.bin", begun["session"], 0, data[:SLICE])) == (400, -283)
    for offset in (0, MIB):
        assert cos.send("a.bin", begun["session"], offset, data[offset : offset + MIB]).json()["code"] == 0
    assert cos.finish("a.bin", begun["session"], len(data)).json()["code"] == 0


def test_an_imposed_slice_size_may_exceed_those_of_clients(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(forced_slice_size=8 * MIB)
    data = os.urandom(8 * MIB + 1)
    begun = cos.init("a.bin", len(data)).json()["data"]
    assert begun["slice_size"] == 8 * MIB
    for offset in (0, 8 * MIB):
        digest = hashlib.md5(data[offset : offset + 8 * MIB]).hexdigest()  # noqa: S324 - the protocol's
        sent = cos.send("a.bin", begun["session"], offset, data[offset : offset + 8 * MIB], datamd5=digest)
        assert sent.json()["code"] == 0
    assert cos.finish("a.bin", begun["session"], len(data)).json()["code"] == 0
    assert cos.get("a.bin").content == data


def test_the_largest_possible_file_has_a_response(cos: Any) -> None:
    """Some file systems accept it as a sparse file; others have no files of this size."""
    response = cos.init("a.bin", 2**63 - 1)
    assert (response.status_code, response.json()["code"]) in {(200, 0), (400, -285)}
    assert cos.upload("b.bin", b"data").json()["code"] == 0


def test_bare_responses_have_the_documented_fields_only(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(bare_answers=True)
    begun = cos.init("a.bin", len(DATA)).json()["data"]
    assert set(begun) == {"session"}
    assert cos.send("a.bin", begun["session"], 0, DATA[:SLICE]).json()["data"] == {}
    assert set(cos.list("a.bin").json()["data"]) == {"session", "listparts"}
