"""`upload_slice`, the operation of older clients: slices in order, no finish."""

from __future__ import annotations

import os
from typing import Any

from tests.integration.emulator.client import SLICE, sha1

DATA = os.urandom(2 * SLICE + 100)
SHA = sha1(DATA)


def begin(cos: Any, **fields: object) -> dict[str, Any]:
    given = {"sha": SHA, "filesize": len(DATA), "slice_size": SLICE, **fields}
    return dict(cos.post("a.bin", "upload_slice", **given).json())


def send(cos: Any, session: str, offset: int, data: bytes = DATA) -> dict[str, Any]:
    content = data[offset : offset + SLICE]
    return dict(cos.post("a.bin", "upload_slice", content, session=session, offset=offset, insertOnly="").json())


def test_the_response_to_the_last_slice_is_that_of_a_finish(cos: Any) -> None:
    begun = begin(cos)["data"]
    assert (begun["offset"], begun["slice_size"]) == (0, SLICE)
    session = begun["session"]
    assert [set(send(cos, session, offset)["data"]) for offset in (0, SLICE)] == [{"session", "offset", "datalen"}] * 2
    for _ in range(2):
        assert send(cos, session, 2 * SLICE)["data"]["resource_path"] == "/10055004/uploads/a.bin"
    assert cos.get("a.bin").content == DATA
    assert cos.stat("a.bin").json()["data"]["sha"] == SHA


def test_an_upload_is_resumed_with_its_session(cos: Any) -> None:
    session = begin(cos)["data"]["session"]
    send(cos, session, 0)
    assert begin(cos)["code"] == -4019
    assert begin(cos, session=session)["data"] == {"session": session, "offset": SLICE, "slice_size": SLICE}
    assert send(cos, session, 2 * SLICE)["code"] == -4024


def test_bytes_that_differ_from_the_digest_are_refused_at_the_end(cos: Any) -> None:
    session = begin(cos)["data"]["session"]
    other = bytes(len(DATA))
    assert [send(cos, session, offset, other)["code"] for offset in (0, SLICE, 2 * SLICE)] == [0, 0, -4016]
    assert cos.get("a.bin").json()["code"] == -197


def test_stored_bytes_and_empty_files_need_no_slices(cos: Any) -> None:
    cos.upload("b.bin", DATA, sha=SHA)
    assert "url" in begin(cos)["data"]
    assert "url" in begin(cos, filesize=0, sha="da39a3ee5e6b4b0d3255bfef95601890afd80709", insertOnly=0)["data"]
    assert cos.get("a.bin").content == b""
