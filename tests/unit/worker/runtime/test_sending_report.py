"""A worker's report of the requests in flight."""

from __future__ import annotations

import json
import threading
from uuid import UUID

from worker.jobs.leases import Claim
from worker.runtime.sending_report import MAX_ENTRIES, Entry, SendingReport
from worker.tasks.guard import ClaimGuard

WORKER = UUID(int=1)
JOB = UUID(int=2)


def guard(number: int | None = 0, *, size_bytes: int | None = 100, acked_bytes: int = 0) -> ClaimGuard:
    claim = Claim(JOB, number, token=7, epoch=1, worker=WORKER)
    made = ClaimGuard(claim, deadline_s=0.0, stopping=threading.Event(), revoked=lambda: False)
    if size_bytes is not None:
        made.begin_sending(size_bytes)
        made.acknowledged(acked_bytes)
    return made


def numbers(entries: list[Entry]) -> list[int | None]:
    return [entry.claim.number for entry in entries]


def test_an_entry_names_the_claim_and_what_is_acknowledged() -> None:
    entry = Entry(Claim(JOB, None, token=7, epoch=1, worker=WORKER), acked_bytes=5, size_bytes=9, since_s=10.0)
    row = {"job": str(JOB), "number": None, "token": 7, "bytes": 5, "size": 9, "for_s": 2.5}
    assert json.loads(json.dumps(entry.document(now_s=12.5))) == row


def test_only_claims_whose_content_is_being_sent_are_reported() -> None:
    waiting, sending = guard(0, size_bytes=None), guard(1, acked_bytes=30)
    assert [entry[:3] for entry in SendingReport(1.0).observe([waiting, sending])] == [(sending.claim, 30, 100)]


def test_requests_without_content_do_not_count() -> None:
    asking = guard(size_bytes=None)
    asking.acknowledged(300)  # a request without content, before the content
    asking.begin_sending(1000)
    assert asking.sent_bytes == 0
    asking.acknowledged(400)
    assert asking.sent_bytes == 400


def test_content_that_is_sent_once_more_counts_once_it_is_further_than_before() -> None:
    sending = guard(size_bytes=1000, acked_bytes=700)
    sending.begin_sending(1000)
    sending.acknowledged(10)
    assert (sending.sent_bytes, sending.acked_bytes) == (700, 10)
    sending.acknowledged(5000)  # the form around the content
    assert sending.sent_bytes == 1000


def test_what_was_reported_is_not_displaced_by_what_began_before_it() -> None:
    """The oldest claims wait for a slot; when they begin, the report is full."""
    early = [guard(number, size_bytes=None) for number in range(5)]
    late = [guard(number) for number in range(5, 5 + MAX_ENTRIES)]
    report = SendingReport(1.0)
    first = report.observe([*early, *late])
    report.written(first, now_s=0.0)
    for each in early:
        each.begin_sending(100)
    assert numbers(report.observe([*early, *late])) == list(range(5, 5 + MAX_ENTRIES))
    assert numbers(report.observe([*early, *late[1:]])) == [*range(6, 5 + MAX_ENTRIES), 0]


def test_only_a_change_is_written() -> None:
    report, sending = SendingReport(1.0), guard(acked_bytes=5)
    assert not report.due([], now_s=100.0)
    assert report.due(report.observe([sending]), now_s=100.0)
    report.written(report.observe([sending]), now_s=100.0)
    assert not report.due(report.observe([sending]), now_s=200.0)  # nothing was acknowledged since
    sending.acknowledged(6)
    assert not report.due(report.observe([sending]), now_s=100.9)
    assert report.due(report.observe([sending]), now_s=101.0)
    report.written(report.observe([sending]), now_s=101.0)
    assert report.due([], now_s=102.0)  # the end of all sending is a change
