"""Uploads in slices: init, data, list, finish, and each of their refusals."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.emulator.client import MIB, SLICE, outcome, sha1

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = os.urandom(2 * SLICE + 12_345)

# The vector of the protocol: byte i is i mod 251, with the states of its three parts.
VERIFIED = bytes(number % 251 for number in range(2_621_440))
SHA = "d08b7e21afb7bc45b7bc7e265d812094252a14ac"
UPLOADPARTS = json.dumps(
    [
        {"offset": 0, "datalen": MIB, "datasha": "463935c7eea4ca2705d0f481ecedb31f4d0f3a96"},
        {"offset": MIB, "datalen": MIB, "datasha": "657c72d675f1e792607e5c0a7405f66cbdb8c290"},
        {"offset": 2 * MIB, "datalen": SLICE, "datasha": SHA},
    ]
)


def one_part(data: bytes) -> dict[str, str]:
    """Digest and uploadparts of a file of one part."""
    return {"sha": sha1(data), "uploadparts": json.dumps([{"offset": 0, "datalen": len(data), "datasha": sha1(data)}])}


def assert_not_found(cos: Any, path: str) -> None:
    """List, stat and download find nothing."""
    assert [outcome(request(path)) for request in (cos.list, cos.stat, cos.get)] == [(404, -197)] * 3


def test_a_file_comes_back_as_it_was_sent(cos: Any) -> None:
    session = cos.begin("a/b c.bin", len(DATA), biz_attr="mine")
    for offset in (2 * SLICE, 0, SLICE):
        response = cos.send("a/b c.bin", session, offset, DATA[offset : offset + SLICE])
        data = response.json()["data"]
        assert (data["session"], data["offset"], data["datalen"]) == (
            session,
            offset,
            len(DATA[offset : offset + SLICE]),
        )
    assert cos.get("a/b c.bin").json()["code"] == -45062
    response = cos.finish("a/b c.bin", session, len(DATA)).json()
    assert (response["code"], response["message"]) == (0, "SUCCESS")
    assert response["data"]["resource_path"] == "/10055004/uploads/a/b c.bin"
    assert cos.http.get(response["data"]["access_url"]).content == DATA
    stat = cos.stat("a/b c.bin").json()["data"]
    assert (stat["filesize"], stat["filelen"], stat["biz_attr"], stat["slicesize"]) == (
        len(DATA),
        len(DATA),
        "mine",
        SLICE,
    )
    assert set(stat["sha"]) == {"0"}, "no digest was sent"


def test_a_list_has_the_received_slices(cos: Any) -> None:
    assert outcome(cos.list("a.bin")) == (404, -197)
    session = cos.begin("a.bin", len(DATA))
    empty = cos.list("a.bin").json()["data"]
    assert empty == {"session": session, "slice_size": SLICE, "filesize": len(DATA), "listparts": []}
    for offset in (2 * SLICE, 0):
        cos.send("a.bin", session, offset, DATA[offset : offset + SLICE])
    assert cos.list("a.bin").json()["data"]["listparts"] == [
        {"offset": 0, "datalen": SLICE},
        {"offset": 2 * SLICE, "datalen": 12_345},
    ]
    assert cos.stat("a.bin").json()["data"]["filelen"] == SLICE + 12_345
    cos.send("a.bin", session, SLICE, DATA[SLICE : 2 * SLICE])
    cos.finish("a.bin", session, len(DATA))
    complete = cos.list("a.bin").json()["data"]
    assert set(complete) == {"access_url", "source_url", "url", "resource_path"}


def test_an_empty_file_has_no_slices(cos: Any) -> None:
    session = cos.begin("empty", 0)
    assert outcome(cos.send("empty", session, 0, b"")) == (400, -286)
    assert cos.finish("empty", session, 0).json()["code"] == 0
    assert cos.get("empty").content == b""


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"slice_size": 65_536}, -284),
        ({"slice_size": ""}, -284),
        ({"filesize": ""}, -5971),
        ({"filesize": "many"}, -5999),
        ({"filesize": 2**63}, -5999),
        ({"filesize": "9" * 5000}, -5999),
        ({"insertOnly": 2}, -5999),
        ({"insertOnly": -1}, -5999),
        ({"sha": "not a digest"}, -168),
        ({"sha": SHA}, -5965),
        ({"sha": SHA, "uploadparts": "[{"}, -5965),
        ({"sha": SHA, "uploadparts": UPLOADPARTS, "filesize": 1}, -5965),
    ],
)
def test_init_refuses_invalid_parameters(cos: Any, fields: dict[str, object], code: int) -> None:
    assert outcome(cos.init("a.bin", **{"filesize": len(VERIFIED), **fields})) == (400, code)
    assert outcome(cos.list("a.bin")) == (404, -197)


def test_slices_of_a_wrong_offset_or_length_are_refused(cos: Any) -> None:
    session = cos.begin("a.bin", len(DATA))
    assert outcome(cos.send("a.bin", session, 1, DATA[:SLICE])) == (400, -286)
    assert outcome(cos.send("a.bin", session, 3 * SLICE, b"x")) == (400, -286)
    for beyond in (2**63, "9" * 5000):
        assert outcome(cos.post("a.bin", "upload_slice_data", b"x", session=session, offset=beyond)) == (400, -5999)
    assert outcome(cos.send("a.bin", session, 0, DATA[: SLICE - 1])) == (400, -283)
    assert outcome(cos.send("a.bin", session, 2 * SLICE, DATA[:SLICE])) == (400, -5991)
    assert outcome(cos.send("a.bin", session, 0, bytes(4 * MIB))) == (400, -5991)
    assert outcome(cos.post("a.bin", "upload_slice_data", session=session, offset=0)) == (400, -5990)
    assert outcome(cos.post("a.bin", "upload_slice_data", DATA[:SLICE], session=session)) == (400, -286)
    assert cos.list("a.bin").json()["data"]["listparts"] == []


def test_a_session_is_valid_for_its_path_only(cos: Any) -> None:
    session = cos.begin("a.bin", len(DATA))
    assert outcome(cos.send("a.bin", "0" * 96, 0, DATA[:SLICE])) == (400, -4013)
    assert outcome(cos.send("b.bin", session, 0, DATA[:SLICE])) == (400, -4013)
    assert outcome(cos.send("a.bin", "", 0, DATA[:SLICE])) == (400, -94)
    assert outcome(cos.finish("b.bin", session, len(DATA))) == (400, -4013)


def test_a_repeated_slice_is_accepted_and_a_changed_one_never_stored(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    for _ in range(2):
        assert cos.send("a.bin", session, 0, DATA[:SLICE]).json()["code"] == 0
    assert outcome(cos.send("a.bin", session, 0, bytes(SLICE))) == (409, -4026)
    cos.finish("a.bin", session, SLICE)
    assert cos.get("a.bin").content == DATA[:SLICE]


def test_a_slice_with_another_md5_is_refused(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    digest = hashlib.md5(DATA[:SLICE]).hexdigest()  # noqa: S324 - the protocol's
    assert outcome(cos.send("a.bin", session, 0, bytes(SLICE), datamd5=digest)) == (400, -5999)
    assert cos.send("a.bin", session, 0, DATA[:SLICE], datamd5=digest).json()["data"]["datamd5"] == digest


def test_finish_requires_every_byte(cos: Any) -> None:
    session = cos.begin("a.bin", len(DATA))
    cos.send("a.bin", session, 0, DATA[:SLICE])
    assert outcome(cos.finish("a.bin", session, len(DATA))) == (400, -175)
    cos.send("a.bin", session, SLICE, DATA[SLICE : 2 * SLICE])
    cos.send("a.bin", session, 2 * SLICE, DATA[2 * SLICE :])
    assert outcome(cos.finish("a.bin", session, len(DATA) - 1)) == (400, -175)
    assert cos.finish("a.bin", session, len(DATA)).json()["code"] == 0


def test_finish_can_be_repeated_until_the_object_is_replaced(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    cos.send("a.bin", session, 0, DATA[:SLICE])
    first, second = (cos.finish("a.bin", session, SLICE).json() for _ in range(2))
    assert first["data"] == second["data"]
    assert outcome(cos.finish("a.bin", session, SLICE + 1)) == (400, -175)
    assert cos.upload("a.bin", b"other", insertOnly=0).json()["code"] == 0
    assert outcome(cos.finish("a.bin", session, SLICE)) == (400, -4013)


def test_a_verified_upload_is_verified(cos: Any) -> None:
    session = cos.begin("v.bin", len(VERIFIED), sha=SHA.upper(), uploadparts=UPLOADPARTS)
    assert cos.list("v.bin").json()["data"]["sha"] == SHA
    assert outcome(cos.send("v.bin", session, 0, VERIFIED[:SLICE], sha="0" * 40)) == (409, -174)
    cos.send_all("v.bin", session, VERIFIED, sha=SHA)
    assert outcome(cos.finish("v.bin", session, len(VERIFIED))) == (400, -29094)
    assert cos.finish("v.bin", session, len(VERIFIED), sha=SHA).json()["code"] == 0
    assert cos.stat("v.bin").json()["data"]["sha"] == SHA


@pytest.mark.parametrize("wrong", ["a byte", "a state"])
def test_finish_refuses_bytes_that_differ_from_the_digests(cos: Any, wrong: str) -> None:
    sent = bytearray(VERIFIED)
    parts = json.loads(UPLOADPARTS)
    if wrong == "a byte":
        sent[MIB] ^= 1
    else:
        parts[0]["datasha"] = "0" * 40
    session = cos.begin("v.bin", len(VERIFIED), sha=SHA, uploadparts=json.dumps(parts))
    cos.send_all("v.bin", session, bytes(sent))
    assert outcome(cos.finish("v.bin", session, len(VERIFIED), sha=SHA)) == (409, -4016)
    assert_not_found(cos, "v.bin")
    assert outcome(cos.send("v.bin", session, 0, VERIFIED[:SLICE])) == (400, -4013)


def test_a_refused_digest_leaves_the_previous_object(cos: Any) -> None:
    cos.upload("v.bin", b"old")
    session = cos.begin("v.bin", len(VERIFIED), sha=SHA, uploadparts=UPLOADPARTS, insertOnly=0)
    cos.send_all("v.bin", session, VERIFIED)
    assert outcome(cos.finish("v.bin", session, len(VERIFIED), sha="0" * 40)) == (409, -4016)
    assert "session" not in cos.list("v.bin").json()["data"]
    assert cos.stat("v.bin").json()["data"]["filelen"] == 3
    assert cos.get("v.bin").content == b"old"


def test_a_path_has_one_unfinished_upload(cos: Any) -> None:
    cos.begin("plain.bin", len(DATA))
    assert outcome(cos.init("plain.bin", len(DATA))) == (409, -4019)
    assert outcome(cos.init("plain.bin", len(VERIFIED), sha=SHA, uploadparts=UPLOADPARTS)) == (409, -4019)
    cos.begin("verified.bin", len(VERIFIED), sha=SHA, uploadparts=UPLOADPARTS)
    assert outcome(cos.init("verified.bin", len(VERIFIED), sha=SHA, uploadparts=UPLOADPARTS)) == (409, -4019)
    assert outcome(cos.init("verified.bin", 5, **one_part(b"other"))) == (409, -4020)


def test_delete_clears_an_unfinished_upload(cos: Any) -> None:
    session = cos.begin("a.bin", len(DATA))
    assert cos.delete("a.bin").json()["code"] == 0
    assert outcome(cos.send("a.bin", session, 0, DATA[:SLICE])) == (400, -4013)
    assert outcome(cos.delete("a.bin")) == (404, -197)
    cos.begin("a.bin", len(DATA))


def test_an_existing_file_is_replaced_only_on_request_and_only_at_finish(cos: Any) -> None:
    cos.upload("a.bin", b"old")
    assert outcome(cos.init("a.bin", SLICE)) == (409, -177)
    assert outcome(cos.init("a.bin", SLICE, insertOnly=1)) == (409, -177)
    session = cos.begin("a.bin", SLICE, insertOnly=0)
    cos.send("a.bin", session, 0, DATA[:SLICE])
    assert cos.get("a.bin").content == b"old"
    assert cos.list("a.bin").json()["data"]["session"] == session
    cos.finish("a.bin", session, SLICE)
    assert cos.get("a.bin").content == DATA[:SLICE]


def test_finish_refuses_a_path_with_a_newer_file(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    cos.send("a.bin", session, 0, DATA[:SLICE])
    cos.upload("a.bin", b"newer")
    assert outcome(cos.finish("a.bin", session, SLICE)) == (409, -177)
    assert cos.get("a.bin").content == b"newer"


def test_stored_bytes_need_no_upload(cos: Any) -> None:
    cos.upload("old.bin", b"known", sha=sha1(b"known"))
    response = cos.init("new.bin", 5, biz_attr="copy", **one_part(b"known")).json()
    assert "session" not in response["data"]
    assert response["data"]["url"].endswith("/new.bin")
    cos.delete("old.bin")
    assert cos.get("new.bin").content == b"known"
    assert cos.stat("new.bin").json()["data"]["biz_attr"] == "copy"


def test_an_unverified_digest_is_no_reason_to_skip_an_upload(cos: Any) -> None:
    cos.upload("old.bin", b"known")
    assert "session" in cos.init("new.bin", 5, **one_part(b"known")).json()["data"]


def test_insert_only_succeeds_for_the_same_bytes(cos: Any) -> None:
    cos.upload("a.bin", b"known", sha=sha1(b"known"))
    assert "access_url" in cos.init("a.bin", 5, **one_part(b"known")).json()["data"]
    assert outcome(cos.init("a.bin", 5, **one_part(b"other"))) == (409, -177)


def test_instant_upload_can_be_switched_off(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(instant_upload=False)
    cos.upload("old.bin", b"known", sha=sha1(b"known"))
    assert "session" in cos.init("new.bin", 5, **one_part(b"known")).json()["data"]


def test_sessions_expire(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(session_ttl_s=100, verify_signatures=False)
    session = cos.begin("a.bin", len(DATA))
    cos.control.change(clock_offset_s=101)
    assert outcome(cos.send("a.bin", session, 0, DATA[:SLICE])) == (400, -4013)
    assert outcome(cos.list("a.bin")) == (404, -197)
    assert cos.begin("a.bin", len(DATA)) != session


def test_a_store_that_discards_acknowledges_the_same_and_keeps_zeros(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(discard=True)
    session = cos.begin("big", len(DATA))
    cos.send_all("big", session, DATA)
    cos.send_all("big", session, DATA)  # repeated, as after a lost response
    assert cos.finish("big", session, len(DATA)).json()["code"] == 0
    assert cos.get("big").content == bytes(len(DATA))
