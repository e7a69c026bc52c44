"""What a recorder writes is what can be read, whoever else writes and whatever is cut off."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.faults.history import Note, Op, Operation, Outcome, Recorder, Source, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENT = {"source": {"kind": "file", "root": "media", "path": "a"}, "store": "main", "key": "a"}
SOURCE = Source("/media/a", "0" * 40, 5)
JOB = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded.jsonl"


@pytest.fixture
def recorder(file: Path) -> Iterator[Recorder]:
    recorder = Recorder(file, "somebody")
    yield recorder
    recorder.close()


def asks(file: Path) -> list[Operation]:
    return [each for each in read([file]) if isinstance(each, Operation)]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(202, Outcome.OK), (409, Outcome.REFUSED), (422, Outcome.REFUSED), (500, Outcome.UNKNOWN), (503, Outcome.UNKNOWN)],
)
def test_an_answer_says_whether_it_was_done(file: Path, recorder: Recorder, status: int, outcome: Outcome) -> None:
    with recorder.submitting(DOCUMENT, SOURCE, idempotency_key="once") as asked:
        asked.heard(httpx.Response(status, json={"id": JOB, "state": "queued"}))
    [ask] = asks(file)
    assert (ask.client, ask.op, ask.outcome, ask.status, ask.job) == ("somebody", Op.SUBMIT, outcome, status, JOB)
    assert (ask.tenant, ask.key, ask.overwrite, ask.idempotency_key) == ("acme", "a", False, "once")
    assert (ask.path, ask.sha1, ask.size) == (SOURCE.path, SOURCE.sha1, SOURCE.size_bytes)
    assert ask.ended is not None
    assert ask.began <= ask.ended


def test_a_connection_that_is_cut_leaves_it_open(file: Path, recorder: Recorder) -> None:
    with pytest.raises(httpx.ReadTimeout), recorder.cancelling(JOB):
        raise httpx.ReadTimeout("cut")
    [ask] = asks(file)
    assert (ask.op, ask.outcome, ask.ended, ask.job) == (Op.CANCEL, Outcome.UNKNOWN, None, JOB)


def test_a_client_that_died_has_asked(file: Path, recorder: Recorder) -> None:
    with recorder.reading(JOB) as asked:
        asked.told(200, state="uploading")
    with recorder.retrying(JOB):
        killed = file.read_bytes()
    file.write_bytes(killed + b'{"at":1,"what":"to')
    assert [(ask.op, ask.outcome, ask.state) for ask in asks(file)] == [
        (Op.READ, Outcome.OK, "uploading"),
        (Op.RETRY, Outcome.UNKNOWN, None),
    ]


def test_notes_are_read_beside_questions(file: Path, recorder: Recorder) -> None:
    recorder.fault("postgres", how="immediate")
    recorder.changed(SOURCE)
    notes = [each for each in read([file]) if isinstance(each, Note)]
    assert [(note.what, note.name, note.path, note.size) for note in notes] == [
        ("fault", "postgres", None, None),
        ("changed", None, SOURCE.path, SOURCE.size_bytes),
    ]


def test_any_number_may_write_one_file(file: Path) -> None:
    recorders = [Recorder(file, f"client {number}") for number in range(4)]

    def write(recorder: Recorder) -> None:
        for _ in range(200):
            with recorder.planting_object("k", b"content") as asked:
                asked.told(200)

    threads = [threading.Thread(target=write, args=(recorder,)) for recorder in recorders for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for recorder in recorders:
        recorder.close()
    told = asks(file)
    assert len(told) == 4 * 2 * 200
    assert {ask.outcome for ask in told} == {Outcome.OK}
    assert {ask.client for ask in told} == {f"client {number}" for number in range(4)}
