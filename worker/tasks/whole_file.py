"""Send a small file in one request: one task, two commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import ObjectExists, Permanent, Unknown
from worker.tasks.foreign_upload import discard_foreign
from worker.tasks.verify import intent_of

if TYPE_CHECKING:
    from worker.stores.base import Stored
    from worker.tasks.init_work import InitWork


def put_whole(work: InitWork) -> None:
    """Send the file; the job succeeds if the object is proven to be it."""
    body = work.rt.transfers.buffer(work.source.size_bytes)
    work.source.read_into(body, 0)
    wanted = work.wanted()
    wanted.take_digest(work.store.limits.digest, body)
    work.remember_what_was_there()
    try:
        try:
            stored = _send_once(work, body)
        except Permanent as error:
            if error.code != "upload_in_progress":
                raise
            discard_foreign(work.ctx, work.store)
            stored = _send_once(work, body)
    except (ObjectExists, Unknown) as error:
        work.succeed_if_ours(wanted, error)
    else:
        work.succeed_if_ours(wanted, None, in_one=stored.size_bytes is not None)


def _send_once(work: InitWork, body: memoryview) -> Stored:
    """Send it, with as much time from now on as a slice of its size has: the wait for the slot took some.

    Its answer may take all of that, and what became of it is looked up afterwards.
    """
    request_s = work.rt.timers.request_limit_s(work.profile)
    limit_s = request_s + body.nbytes / work.profile.low_speed_bytes_per_s
    with work.rt.transfers.sending(work.guard, work.job.store, body.nbytes):
        if work.guard.remaining_s() < limit_s + request_s:
            work.save(limit_s + request_s)
            work.guard.extend(limit_s + request_s)
        with work.guard.within(limit_s):
            return work.store.put_whole(intent_of(work.job, work.source.size_bytes), body, work.guard)
