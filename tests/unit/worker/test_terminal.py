"""Jobs in words."""

from __future__ import annotations

from typing import Any

from worker.progress import pace
from worker.terminal import acknowledged_bytes, job_lines, job_row, outcome

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


def test_a_row_shows_what_is_known() -> None:
    assert job_row(view()) == (ID, "queued", "", "", "main:a", "")
    assert job_row(UPLOADING) == (ID, "uploading", "50%", "10", "main:a", "")
    assert job_row(WAITING)[-1] == "root_unavailable"


def test_the_lines_of_a_job_tell_what_goes_wrong_and_what_to_do() -> None:
    lines = [line.split(maxsplit=1) for line in job_lines(WAITING)]
    assert ["error", "root_unavailable: root media is empty"] in lines
    assert ["advice", "Mount it."] in lines
    assert ["failing_since", "f"] in lines
    assert ["source", "media:a.mp4"] in lines
    assert not any(line[0] in {"labels", "started_at", "paused_at"} for line in lines)


def test_the_lines_of_a_job_that_uploads_tell_how_far_it_is() -> None:
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
    assert pace(UPLOADING) == "3.0 MiB/s, 1m05s left"
    assert pace(UPLOADING | {"eta_s": 7265}) == "3.0 MiB/s, 2h01m left"
    assert pace(WAITING) == "waits: root media is empty"
    assert pace(view(waiting={"paused_at": "p", "pause_reason": "revoked in Flower"})) == "paused: revoked in Flower"


def test_the_outcome_is_one_line() -> None:
    done = view(progress={"size_bytes": 1234567})
    assert outcome(done) == f"main:a has all 1,234,567 bytes (job {ID})"
