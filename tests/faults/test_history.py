"""`read` returns what recorders have written, also with several writers and after a crash of one."""

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
    recorder = Recorder(file, "client")
    yield recorder
    recorder.close()


def operations(file: Path) -> list[Operation]:
    return [each for each in read([file]) if isinstance(each, Operation)]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(202, Outcome.OK), (409, Outcome.REFUSED), (422, Outcome.REFUSED), (500, Outcome.UNKNOWN), (503, Outcome.UNKNOWN)],
)
def test_an_answer_decides_the_outcome(file: Path, recorder: Recorder, status: int, outcome: Outcome) -> None:
    with recorder.submitting(DOCUMENT, SOURCE, idempotency_key="once") as pending:
        pending.record(httpx.Response(status, json={"id": JOB, "state": "queued"}))
    [found] = operations(file)
    assert (found.client, found.op, found.outcome, found.status, found.job) == (
        "client",
        Op.SUBMIT,
        outcome,
        status,
        JOB,
    )
    assert (found.tenant, found.key, found.overwrite, found.idempotency_key) == (
        "acme",
        "a",
        False,
        "once",
    )
    assert (found.path, found.sha1, found.size) == (SOURCE.path, SOURCE.sha1, SOURCE.size_bytes)
    assert found.ended is not None
    assert found.began <= found.ended


def test_after_a_cut_connection_the_outcome_is_unknown(file: Path, recorder: Recorder) -> None:
    with pytest.raises(httpx.ReadTimeout), recorder.cancelling(JOB):
        raise httpx.ReadTimeout("cut")
    [found] = operations(file)
    assert (found.op, found.outcome, found.ended, found.job) == (Op.CANCEL, Outcome.UNKNOWN, None, JOB)


def test_the_last_request_of_a_killed_client_is_known(file: Path, recorder: Recorder) -> None:
    with recorder.reading(JOB) as pending:
        pending.answered(200, state="uploading")
    with recorder.retrying(JOB):
        killed = file.read_bytes()
    file.write_bytes(killed + b'{"at":1,"what":"an')
    assert [(found.op, found.outcome, found.state) for found in operations(file)] == [
        (Op.READ, Outcome.OK, "uploading"),
        (Op.RETRY, Outcome.UNKNOWN, None),
    ]


def test_notes_are_read_beside_operations(file: Path, recorder: Recorder) -> None:
    recorder.fault("postgres", how="immediate")
    recorder.changed(SOURCE)
    notes = [each for each in read([file]) if isinstance(each, Note)]
    assert [(note.what, note.name, note.path, note.size) for note in notes] == [
        ("fault", "postgres", None, None),
        ("changed", None, SOURCE.path, SOURCE.size_bytes),
    ]


def test_any_number_of_recorders_may_share_a_file(file: Path) -> None:
    recorders = [Recorder(file, f"client {number}") for number in range(4)]

    def write(recorder: Recorder) -> None:
        for _ in range(200):
            with recorder.planting_object("k", b"content") as pending:
                pending.answered(200)

    threads = [threading.Thread(target=write, args=(recorder,)) for recorder in recorders for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for recorder in recorders:
        recorder.close()
    recorded = operations(file)
    assert len(recorded) == 4 * 2 * 200
    assert {found.outcome for found in recorded} == {Outcome.OK}
    assert {found.client for found in recorded} == {f"client {number}" for number in range(4)}
