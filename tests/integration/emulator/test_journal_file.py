"""The durable journal has every request and every effect, in order, whatever became of the emulator."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLICE = 512 * 1024
DATA = os.urandom(2 * SLICE)


class Written:
    """A journal file and how to read it."""

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


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


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


def test_what_was_done_is_told_apart_from_what_was_said(cos: Any, written: Written) -> None:
    session = cos.begin("a.bin", len(DATA))
    cos.control.add_rule("error", op="data", offset=0, when="after", status=500, code=-195)
    cos.control.add_rule("swallow", op="data", offset=SLICE)
    cos.send("a.bin", session, 0, DATA[:SLICE])
    cos.send("a.bin", session, SLICE, DATA[SLICE:])
    unsaid, lied = written.lines("request", op="data")
    assert (unsaid["effect"], unsaid["status"], unsaid["code"]) == (0, 500, -195)
    assert ("effect" in lied, lied["status"], lied["faults"]) == (False, 200, ["swallow"])


def test_a_request_that_is_cut_is_there_as_far_as_it_came(cos: Any, written: Written) -> None:
    session = cos.begin("a.bin", len(DATA))
    cos.control.add_rule("cut_body", op="data", body_bytes=SLICE // 2, count=1)
    cos.control.add_rule("cut", op="data", when="after", count=1)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            cos.send("a.bin", session, 0, DATA[:SLICE])
    torn, unanswered = written.lines("request", op="data")
    assert SLICE // 4 < torn["size"] <= SLICE
    assert ("effect" in torn, "status" in torn) == (False, False)
    assert (unanswered["effect"], "status" in unanswered, unanswered["sha1"]) == (0, False, sha1(DATA[:SLICE]))


def test_objects_that_are_replaced_and_deleted(cos: Any, written: Written) -> None:
    cos.upload("a.bin", b"one", biz_attr="first")
    cos.upload("a.bin", b"two", biz_attr="second", insertOnly=0)
    session = cos.begin("a.bin", len(DATA), insertOnly=0)
    cos.send_all("a.bin", session, DATA)
    cos.finish("a.bin", session, len(DATA))
    cos.delete("a.bin")
    told = [(each["how"], each["sha1"]) for each in written.lines("published")]
    assert told == [("whole", sha1(b"one")), ("whole", sha1(b"two")), ("finish", sha1(DATA))]
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


def test_a_copy_made_at_once_is_published(cos: Any, written: Written) -> None:
    digest, whole = sha1(b"same"), [{"offset": 0, "datalen": 4, "datasha": sha1(b"same")}]
    cos.upload("a.bin", b"same", sha=digest)
    cos.init("b.bin", 4, sha=digest, uploadparts=json.dumps(whole))
    assert [(each["how"], each["path"], each["sha1"]) for each in written.lines("published")] == [
        ("whole", "a.bin", digest),
        ("copy", "b.bin", digest),
    ]


def test_a_start_tells_what_is_held(start_cos: Callable[..., Any], written: Written) -> None:
    cos = start_cos()
    session = cos.begin("a.bin", len(DATA))
    cos.send("a.bin", session, SLICE, DATA[SLICE:])
    start_cos(journal_file=written.file)
    [held] = written.lines("held")
    assert (held["path"], held["session"], held["slices"]) == ("a.bin", session, [[SLICE, SLICE]])


def test_what_was_answered_is_written_before_a_kill(tmp_path: Path, cos: Any, written: Written) -> None:
    """The file goes on after a restart; nothing that was answered is missing, even with no moment to spare."""
    kind, count = type(cos), 6
    argv = [sys.executable, "-m", "worker.emulator", "--data-dir", str(tmp_path / "other"), "--appid", "10055004"]
    argv += ["--bucket", "uploads", "--secret-id", "fake-secret-id", "--secret-key", "fake-secret-key", "--no-fsync"]
    argv += ["--journal", str(written.file)]
    session = ""
    for number in range(count):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        client = kind(*process.stdout.readline().split()[2::2])
        session = session or client.begin("a.bin", count * SLICE)
        answer = client.send("a.bin", session, number * SLICE, DATA[:SLICE])
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        client.close()
        assert answer.json()["code"] == 0
    slices = written.lines("request", op="data", session=session, effect=0)
    assert [each["offset"] for each in slices] == [number * SLICE for number in range(count)]
    assert [len(each["slices"]) for each in written.lines("held", session=session)] == [1, 2, 3, 4, 5]
