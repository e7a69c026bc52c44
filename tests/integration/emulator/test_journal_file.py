"""The journal file has every request and every effect, in order, also after a kill of the emulator."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.emulator.client import SLICE, cos_process, sha1

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = os.urandom(2 * SLICE)


class Written:
    """A reader of a journal file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def lines(self, what: str, **fields: object) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.file.read_bytes().splitlines()]
        return [line for line in found if line["what"] == what and all(line.get(n) == v for n, v in fields.items())]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "journal.jsonl")


@pytest.fixture
def cos(start_cos: Callable[..., Any], written: Written) -> Any:
    return start_cos(journal_file=written.file)


def test_an_upload_from_init_to_object(cos: Any, written: Written) -> None:
    session = cos.begin("a.bin", len(DATA), biz_attr="a mark")
    cos.send_all("a.bin", session, DATA)
    cos.finish("a.bin", session, len(DATA))
    [opened], [published] = written.lines("opened"), written.lines("published")
    assert (opened["session"], opened["mark"], opened["slice_size"]) == (session, "a mark", SLICE)
    assert (published["session"], published["how"], published["size"]) == (session, "finish", len(DATA))
    slices = written.lines("request", op="data", session=session, effect=0, status=200, code=0)
    assert [(each["offset"], each["size"]) for each in slices] == [(0, SLICE), (SLICE, SLICE)]
    assert [each["sha1"] for each in slices] == [sha1(DATA[:SLICE]), sha1(DATA[SLICE:])]
    times = [opened["at"], *(at for each in slices for at in (each["began"], each["at"])), published["at"]]
    assert times == sorted(times)


def test_a_request_has_its_effect_and_its_response(cos: Any, written: Written) -> None:
    session = cos.begin("a.bin", len(DATA))
    cos.control.add_rule("error", op="data", offset=0, when="after", status=500, code=-195)
    cos.control.add_rule("swallow", op="data", offset=SLICE)
    cos.send("a.bin", session, 0, DATA[:SLICE])
    cos.send("a.bin", session, SLICE, DATA[SLICE:])
    failed, swallowed = written.lines("request", op="data")
    assert (failed["effect"], failed["status"], failed["code"]) == (0, 500, -195)
    assert ("effect" in swallowed, swallowed["status"], swallowed["faults"]) == (False, 200, ["swallow"])


def test_a_request_that_is_cut_is_recorded_as_far_as_received(cos: Any, written: Written) -> None:
    session = cos.begin("a.bin", len(DATA))
    cos.control.add_rule("cut_body", op="data", body_bytes=SLICE // 2, count=1)
    cos.control.add_rule("cut", op="data", when="after", count=1)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            cos.send("a.bin", session, 0, DATA[:SLICE])
    cut, unanswered = written.lines("request", op="data")
    assert SLICE // 4 < cut["size"] <= SLICE
    assert ("effect" in cut, "status" in cut) == (False, False)
    assert (unanswered["effect"], "status" in unanswered, unanswered["sha1"]) == (0, False, sha1(DATA[:SLICE]))


def test_objects_that_are_replaced_and_deleted(cos: Any, written: Written) -> None:
    cos.upload("a.bin", b"one", biz_attr="first")
    cos.upload("a.bin", b"two", biz_attr="second", insertOnly=0)
    session = cos.begin("a.bin", len(DATA), insertOnly=0)
    cos.send_all("a.bin", session, DATA)
    cos.finish("a.bin", session, len(DATA))
    cos.delete("a.bin")
    published = [(each["how"], each["sha1"]) for each in written.lines("published")]
    assert published == [("whole", sha1(b"one")), ("whole", sha1(b"two")), ("finish", sha1(DATA))]
    assert [each["mark"] for each in written.lines("replaced")] == ["first", "second"]
    assert [each["session"] for each in written.lines("deleted")] == [session]


def test_sessions_that_end_without_an_object(cos: Any, written: Written) -> None:
    sessions = {key: cos.begin(key, len(DATA)) for key in ("aborted", "lost", "expired")}
    cos.delete("aborted")
    cos.control.add_rule("lose_session", op="data", path="lost")
    cos.send("lost", sessions["lost"], 0, DATA[:SLICE])
    cos.control.change(session_ttl_s=0)
    cos.begin("another", len(DATA))
    assert {how: [each["session"] for each in written.lines(how)] for how in sessions} == {
        how: [session] for how, session in sessions.items()
    }


def test_an_instant_upload_is_published(cos: Any, written: Written) -> None:
    digest, whole = sha1(b"same"), [{"offset": 0, "datalen": 4, "datasha": sha1(b"same")}]
    cos.upload("a.bin", b"same", sha=digest)
    cos.init("b.bin", 4, sha=digest, uploadparts=json.dumps(whole))
    assert [(each["how"], each["path"], each["sha1"]) for each in written.lines("published")] == [
        ("whole", "a.bin", digest),
        ("copy", "b.bin", digest),
    ]


def test_a_start_records_the_slices_of_unfinished_uploads(start_cos: Callable[..., Any], written: Written) -> None:
    cos = start_cos()
    session = cos.begin("a.bin", len(DATA))
    cos.send("a.bin", session, SLICE, DATA[SLICE:])
    start_cos(journal_file=written.file)
    [held] = written.lines("held")
    assert (held["path"], held["session"], held["slices"]) == ("a.bin", session, [[SLICE, SLICE]])


def test_a_kill_loses_no_line_whose_response_was_sent(tmp_path: Path, written: Written) -> None:
    """No line of a response that was sent is missing, also after several kills and restarts."""
    count, session = 6, ""
    for number in range(count):
        with cos_process(tmp_path / "other", "--no-fsync", "--journal", str(written.file)) as cos:
            session = session or cos.begin("a.bin", count * SLICE)
            response = cos.send("a.bin", session, number * SLICE, DATA[:SLICE])
        assert response.json()["code"] == 0
    slices = written.lines("request", op="data", session=session, effect=0)
    assert [each["offset"] for each in slices] == [number * SLICE for number in range(count)]
    assert [len(each["slices"]) for each in written.lines("held", session=session)] == [1, 2, 3, 4, 5]
