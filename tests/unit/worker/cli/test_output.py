"""Jobs as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.cli.output import (
    JOBS,
    acknowledged_bytes,
    age_text,
    event_row,
    job_lines,
    job_row,
    outcome,
    reason,
    slice_row,
    table_lines,
)
from worker.cli.progress import pace

ID = "01890000-0000-7000-8000-000000000000"


def view(**more: Any) -> dict[str, Any]:
    progress = dict.fromkeys(("bytes_done", "size_bytes", "slices_done", "slices_total", "percent"))
    empty = ("started_at", "finished_at", "waiting", "throughput_bytes_per_s", "eta_s", "error", "result")
    known = {
        "id": ID,
        "tenant": "acme",
        "state": "queued",
        "store": "main",
        "key": "a",
        "labels": {},
        "created_at": "c",
    }
    rules = {"priority": 5, "verify": "auto", "overwrite": False}
    source = {"kind": "file", "root": "media", "path": "a.mp4"}
    return dict.fromkeys(empty) | known | rules | {"source": source, "progress": progress} | more


UPLOADING = view(
    state="uploading",
    progress={"bytes_done": 5, "size_bytes": 10, "slices_done": 1, "slices_total": 2, "percent": 50.0},
    throughput_bytes_per_s=3 * 1024 * 1024,
    eta_s=65,
)
WAITING = view(
    waiting={"not_before": "n", "failing_since": "f", "paused_at": None, "pause_reason": None},
    error={"code": "root_unavailable", "message": "root media is empty", "advice": "Mount it.", "at": "x"},
)


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def row_of(job: dict[str, Any]) -> tuple[str, ...]:
    return job_row(job, NOW)


def test_a_row_shows_what_is_known() -> None:
    assert row_of(view()) == (ID, "queued", "", "", "", "", "acme", "main:a", "")
    assert row_of(UPLOADING) == (ID, "uploading", "", "50%", "10", "3.15 MB/s", "acme", "main:a", "")
    assert row_of(WAITING)[-1] == "root_unavailable"


@pytest.mark.parametrize(
    ("moment", "age"),
    [
        ("2026-01-31T12:00:05Z", "0s"),
        ("2026-01-31T11:58:01Z", "119s"),
        ("2026-01-31T11:58:00Z", "2m"),
        ("2026-01-31T13:00:01+03:00", "119m"),
        ("2026-01-31T10:00:00Z", "2h"),
        ("2026-01-29T12:00:01Z", "47h"),
        ("2026-01-29T12:00:00.5Z", "47h"),
        ("2026-01-29T12:00:00Z", "2d"),
        ("2026-01-29", ""),
        ("", ""),
    ],
)
def test_an_age_is_in_its_largest_unit(moment: str, age: str) -> None:
    assert age_text(moment, NOW) == age


def test_the_reason_is_what_a_job_waits_for_or_has_failed_of() -> None:
    assert reason(view()) == reason(UPLOADING) == ""
    assert reason(WAITING) == "root_unavailable"
    assert reason(view(waiting={"not_before": "n", "paused_at": None})) == "waits"
    paused = {"paused_at": "p", "pause_reason": "revoked in Flower"}
    assert reason(WAITING | {"waiting": paused}) == "paused: revoked in Flower"


def test_an_event_and_a_slice_are_a_row_each() -> None:
    event = {"at": "t", "kind": "failed", "from_state": "queued", "to_state": "failed", "epoch": 1, "actor": "w"}
    cause = {"code": "source_gone", "message": "it is gone"}
    assert event_row(event | {"cause": cause}) == (
        "t",
        "failed",
        "queued",
        "failed",
        "1",
        "w",
        "source_gone: it is gone",
    )
    assert event_row(event | {"cause": None, "from_state": None})[2:] == ("", "failed", "1", "w", "")
    assert event_row(event | {"cause": {"slices": 3}})[-1] == '{"slices": 3}'
    piece = {"number": 1, "offset_bytes": 1000, "size_bytes": 1000, "state": "done", "attempts": 0, "sends": 1}
    assert slice_row(piece | {"done_at": "t", "error": None}) == ("1", "1,000", "1,000", "done", "0", "1", "t", "")
    assert slice_row(piece | {"done_at": None, "error": cause})[-2:] == ("", "source_gone: it is gone")


LONG = {"key": "orders/2026/11/29/a-rather-long-name-of-a-film.mov", "state": "uploading"}


def test_a_terminal_that_is_wide_enough_shows_every_column() -> None:
    head, row = table_lines(JOBS, [row_of(UPLOADING | LONG)], 200)
    assert head.split() == ["ID", "STATE", "AGE", "DONE", "BYTES", "RATE", "TENANT", "TARGET", "REASON"]
    assert row.split() == [ID, "uploading", "50%", "10", "3.15", "MB/s", "acme", f"main:{LONG['key']}"]
    assert table_lines(JOBS, [row_of(UPLOADING | LONG)]) == [head, row]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (90, ["ID", "STATE", "TARGET"]),
        (80, ["ID", "STATE", "TARGET"]),
        (59, ["ID", "STATE", "REASON"]),
        (47, ["ID", "STATE"]),
        (40, ["ID"]),
        (10, ["ID"]),
    ],
)
def test_a_narrow_terminal_shows_the_columns_that_fit(width: int, columns: list[str]) -> None:
    lines = table_lines(JOBS, [row_of(UPLOADING | LONG), row_of(view())], width)
    assert lines[0].split() == columns
    assert max(map(len, lines)) <= max(width, len(ID))
    assert all(ID in line for line in lines[1:])
    if "TARGET" in columns:
        target = lines[1].split()[-1]
        assert target.startswith("main:orders")
        assert "…" in target
        assert target.endswith("film.mov")


def test_wide_and_control_characters_keep_a_row_on_one_line() -> None:
    head, row = table_lines(JOBS, [row_of(view(key="影" * 40 + "\n\x1b[2J"))], 80)
    assert "\x1b" not in row
    assert len(row) + row.count("影") <= 80
    assert head.startswith("ID")
    assert "\x1b" not in "".join(job_lines(view(key="\x1b[2J"))) + outcome(view(key="\x1b[2J"))


def test_sizes_are_bytes_with_commas() -> None:
    progress = UPLOADING["progress"] | {"size_bytes": 30_000_000}
    assert row_of(UPLOADING | {"progress": progress})[4] == "30,000,000"


def test_the_lines_of_a_job_have_its_error_and_advice() -> None:
    lines = [line.split(maxsplit=1) for line in job_lines(WAITING)]
    assert ["error", "root_unavailable: root media is empty"] in lines
    assert ["advice", "Mount it."] in lines
    assert ["failing_since", "f"] in lines
    assert ["source", "media:a.mp4"] in lines
    assert not any(line[0] in {"labels", "started_at", "paused_at"} for line in lines)


def test_the_lines_of_a_job_that_uploads_have_its_progress() -> None:
    lines = [line.split(maxsplit=1) for line in job_lines(UPLOADING)]
    assert ["progress", "5 of 10 bytes, 50.0 %"] in lines
    assert ["slices", "1 of 2"] in lines


def test_bytes_in_flight_count_where_the_api_knows_them() -> None:
    assert acknowledged_bytes({"bytes_done": 5, "bytes_in_flight": 2}) == 7
    assert acknowledged_bytes({"bytes_done": 5}) == 5
    under_way = UPLOADING | {"progress": UPLOADING["progress"] | {"bytes_in_flight": 2, "percent": 70.0}}
    assert "progress    7 of 10 bytes, 70.0 %" in job_lines(under_way)


def test_pace_is_speed_or_what_it_waits_for() -> None:
    assert pace(view()) == ""
    assert pace(UPLOADING) == "3.15 MB/s, 1m05s left"
    assert pace(UPLOADING | {"eta_s": 7265}) == "3.15 MB/s, 2h01m left"
    assert pace(WAITING) == "waits: root media is empty"
    assert pace(view(waiting={"paused_at": "p", "pause_reason": "revoked in Flower"})) == "paused: revoked in Flower"


def test_the_outcome_is_one_line() -> None:
    done = view(progress={"size_bytes": 1234567})
    assert outcome(done) == f"main:a has all 1,234,567 bytes (job {ID})"
