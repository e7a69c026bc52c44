"""The journal selects entries, and keeps a limited number of them."""

from __future__ import annotations

from worker.emulator.core.journal import Journal


def test_entries_are_selected_by_their_fields() -> None:
    journal = Journal(10)
    for offset in (0, 1):
        entry = journal.begin("POST")
        journal.update(entry, op="data", path="videos/a.mp4", offset=offset, code=0 if offset else None)
    assert [each["offset"] for each in journal.select({"op": "data"})] == [0, 1]
    assert [each["offset"] for each in journal.select({"path": "videos/*", "offset": "1"})] == [1]
    assert [each["offset"] for each in journal.select({"code": ""})] == [0]
    assert [each["offset"] for each in journal.select({"after": "1"})] == [1]
    assert journal.select({"op": "init"}) == []


def test_only_the_latest_entries_are_kept() -> None:
    journal = Journal(2)
    for _ in range(3):
        journal.begin("GET")
    assert [each["number"] for each in journal.select({})] == [2, 3]
    journal.clear()
    assert journal.select({}) == []


def test_a_wait_ends_at_its_timeout() -> None:
    journal = Journal(2)
    journal.begin("GET")
    assert len(journal.select({}, count=2, timeout_s=0.01)) == 1
