"""The control endpoint: its token, the journal, settings, uploads and objects."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.emulator.client import SLICE
from worker.emulator.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_journal_counts_sends_finishes_and_deletes(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(journal_sha1=True)
    session = cos.begin("a.bin", SLICE)
    for _ in range(2):
        cos.send("a.bin", session, 0, bytes(SLICE))
    cos.finish("a.bin", session, SLICE)
    cos.delete("a.bin")
    cos.delete("a.bin")
    cos.control.requests(state="answered", count=6, timeout_s=120)
    sends = cos.control.requests(op="data", path="a.*", session=session, offset=0, code=0)
    assert [(each["size"], each["status"], each["effect"]) for each in sends] == [(SLICE, 200, 0)] * 2
    assert {each["sha1"] for each in sends} == {"6a521e1d2a632c26e53b83d2cc4b0edecfc1e68c"}
    assert len(cos.control.requests(op="finish", code=0)) == 1
    assert [each["code"] for each in cos.control.requests(op="delete")] == [0, -197]
    assert [each["op"] for each in cos.control.requests(after=sends[-1]["number"])] == ["finish", "delete", "delete"]
    cos.control.clear_requests()
    assert cos.control.requests() == []


def test_uploads_and_objects_are_listed_and_planted(cos: Any) -> None:
    session = cos.control.plant_upload(
        "uploads", "other.bin", filesize=2 * SLICE, slice_size=SLICE, slices={SLICE: bytes(SLICE)}
    )
    assert cos.list("other.bin").json()["data"]["listparts"] == [{"offset": SLICE, "datalen": SLICE}]
    (upload,) = cos.control.uploads("uploads")
    assert (upload["path"], upload["session"], upload["slices"]) == ("other.bin", session, [[SLICE, SLICE]])
    cos.control.plant_object("uploads", "a b.bin", b"planted", biz_attr="planted", with_sha=True)
    assert cos.get("a b.bin").content == b"planted"
    (stored,) = cos.control.objects("uploads")
    assert (stored["path"], stored["filesize"], stored["biz_attr"], len(stored["sha"])) == ("a b.bin", 7, "planted", 40)
    assert cos.control.objects("other") == []


def test_planting_is_checked_as_a_request_is(cos: Any) -> None:
    cos.control.plant_upload("uploads", "a.bin", filesize=1)
    with pytest.raises(ControlError, match="-4019"):
        cos.control.plant_upload("uploads", "a.bin", filesize=1)
    with pytest.raises(ControlError, match="-133"):
        cos.control.plant_object("none", "a.bin", b"")


def test_sessions_end_on_command(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    assert cos.control.expire_sessions() == 1
    assert cos.send("a.bin", session, 0, bytes(SLICE)).json()["code"] == -4013
    assert cos.control.uploads("uploads") == []


def test_settings_change_while_it_runs(cos: Any) -> None:
    assert cos.control.change(verify_signatures=False)["verify_signatures"] is False
    assert cos.upload("a.bin", b"data", token="").json()["code"] == 0
    assert cos.control.settings()["rate_bytes_per_s"] is None
    with pytest.raises(ControlError, match="no such settings: speed"):
        cos.control.change(speed=1)


def test_the_rate_of_uploads_is_limited_and_can_change(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(rate_bytes_per_s=2 * SLICE)
    began = time.monotonic()
    cos.upload("a.bin", bytes(SLICE))
    assert time.monotonic() - began >= 0.4, "the bytes of half a second"
    cos.control.change(rate_bytes_per_s=SLICE)
    cos.upload("b.bin", bytes(SLICE // 2))
    (first, second) = cos.control.requests(op="upload", state="answered", count=2, timeout_s=120)
    assert second["ended_s"] - second["began_s"] >= 0.4
    assert first["ended_s"] - first["began_s"] >= 0.4


def test_an_unknown_control_request_is_named_in_the_error(cos: Any) -> None:
    with pytest.raises(ControlError, match="/nothing"):
        cos.control._call("GET", "/nothing")


def test_only_health_needs_no_token(start_cos: Callable[..., Any]) -> None:
    cos = start_cos()
    base, token = cos.control_url, cos.token_file.read_text()
    for given in (None, "", token, "Bearer", "Bearer x", f"Bearer {token}x", f"Basic {token}", f"Bearer {token[:-1]}"):
        headers = {} if given is None else {"Authorization": given}
        for method, path in (("GET", "/settings"), ("PATCH", "/settings"), ("GET", "/requests"), ("DELETE", "/rules"),
                             ("DELETE", "/rules/1"), ("POST", "/objects"), ("GET", "/nowhere")):  # fmt: skip
            response = cos.http.request(method, base + path, headers=headers, content=b"{}")
            assert (response.status_code, token in response.text) == (401, False)
        assert cos.http.get(f"{base}/health", headers=headers).status_code == 200
    assert cos.control.settings()
    cos = start_cos()
    assert cos.token_file.read_text() != token
    assert cos.http.get(f"{cos.control_url}/settings", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_its_files_are_readable_by_its_user_alone(start_cos: Callable[..., Any]) -> None:
    cos = start_cos()
    folder = cos.token_file.parent
    cos.upload("a.bin", b"content")
    for path in (folder, folder / "content", *folder.glob("*.*"), folder / "lock"):  # the modes of an older release
        path.chmod(0o755)
    cos = start_cos()
    cos.upload("b.bin", b"content")
    found = [folder, *folder.rglob("*")]
    assert {"records.sqlite3", "content", "control-token", "lock"} < {path.name for path in found}
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in found if path.stat().st_mode & 0o077} == {}
