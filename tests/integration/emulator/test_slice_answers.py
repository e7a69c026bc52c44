"""Slices and answers as other servers have them: larger ones, and barer ones."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
SLICE = 512 * 1024
DATA = os.urandom(2 * SLICE + 12_345)


def refusal(answer: Any) -> tuple[int, int]:
    return answer.status_code, answer.json()["code"]


def test_the_server_s_slice_size_counts(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(forced_slice_size=MIB, serial_upload=True)
    data = os.urandom(MIB + 1)
    begun = cos.init("a.bin", len(data), slice_size=SLICE).json()["data"]
    assert (begun["slice_size"], begun["serial_upload"]) == (MIB, 1)
    assert refusal(cos.send("a.bin", begun["session"], MIB, data[MIB:])) == (400, -4024)
    assert refusal(cos.send("a.bin", begun["session"], 0, data[:SLICE])) == (400, -283)
    for offset in (0, MIB):
        assert cos.send("a.bin", begun["session"], offset, data[offset : offset + MIB]).json()["code"] == 0
    assert cos.finish("a.bin", begun["session"], len(data)).json()["code"] == 0


def test_a_slice_may_be_larger_than_those_that_can_be_asked_for(start_cos: Callable[..., Any]) -> None:
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


def test_the_largest_file_that_there_can_be_has_an_answer(cos: Any) -> None:
    """Some file systems take it, as a hole; others have no files so large."""
    answer = cos.init("a.bin", 2**63 - 1)
    assert (answer.status_code, answer.json()["code"]) in {(200, 0), (400, -285)}
    assert cos.upload("b.bin", b"data").json()["code"] == 0


def test_answers_may_hold_no_more_than_is_promised(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(bare_answers=True)
    begun = cos.init("a.bin", len(DATA)).json()["data"]
    assert set(begun) == {"session"}
    assert cos.send("a.bin", begun["session"], 0, DATA[:SLICE]).json()["data"] == {}
    assert set(cos.list("a.bin").json()["data"]) == {"session", "listparts"}
