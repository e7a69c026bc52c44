"""The invariants: what holds after every test."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.support.deadline import DEADLINE_S
from tests.support.store import SECRET_KEY
from worker.jobs.states import FINAL
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

_DISPATCHED = """
  SELECT key, 'the job''s step is ' || step AS what FROM job
  WHERE step IN ('dispatched', 'running') AND id = ANY (%(ids)s::uuid[])
  UNION ALL
  SELECT key, 'slice ' || number || ' is ' || s.state FROM slice s JOIN job j ON j.id = s.job_id
  WHERE s.state IN ('dispatched', 'sending') AND j.id = ANY (%(ids)s::uuid[])"""


def broken(site: Installation) -> list[str]:
    """Return what does not hold; waits for the last claims to end."""
    settled = [job for job in site.jobs if job.explained is None]
    wait_until(lambda: not list(_unfinished(site, settled)), timeout_s=DEADLINE_S, poll_s=0.05)
    return [
        *_unfinished(site, settled),
        *(f"{row['what']} (job {row['job_id']})" for row in site.sql("SELECT * FROM wrong_move")),
        *_objects(site),
        *_finishes(site),
        *_sessions(site),
        *_histories(site),
        *_logs(site),
    ]


def _unfinished(site: Installation, jobs: list[Job]) -> Iterator[str]:
    ids = [job.id for job in jobs]
    for row in site.sql("SELECT key, state FROM job WHERE id = ANY (%(ids)s::uuid[])", ids=ids):
        if row["state"] not in FINAL:
            yield f"job {row['key']} is still {row['state']}"
    for row in site.sql(_DISPATCHED, ids=ids):
        yield f"job {row['key']}: {row['what']}"


def _objects(site: Installation) -> Iterator[str]:
    """A success is the file's bytes at the key; whatever became of its jobs, an object is one whole file.

    The object of another client is unchanged.
    """
    last = {job.key: job for job in site.jobs if job.state == "succeeded"}
    for key in {job.key for job in site.jobs}:
        there = site.store.object_at(key)
        if key in last and there != last[key].content:
            yield f"job {key} has succeeded, but the object is not the file"
        files = [job.content for job in site.jobs if job.key == key] + site.store.others.get(key, [])
        if there is not None and there not in files:
            yield f"the object at {key} is the file of none of its jobs"
    for key, content in site.store.foreign_objects.items():
        if site.store.object_at(key) != content:
            yield f"the foreign object {key} was replaced or deleted"


def _finishes(site: Installation) -> Iterator[str]:
    """No session is completed twice, and a job no more often than it has succeeded."""
    finishes = [entry for entry in site.store.requests(op="finish") if entry["effect"] == 0]
    for (key, _), times in Counter((entry["path"], entry["session"]) for entry in finishes).items():
        if times > 1:
            yield f"the session of {key} was finished {times} times"
    ends = {"proven", "cancel_too_late", "failed"}
    allowed = Counter(job.key for job in site.jobs for kind in job.kinds if kind in ends | _unverified(job))
    for key, times in Counter(entry["path"] for entry in finishes).items():
        if times > allowed[key]:
            yield f"{key} was finished {times} times for {allowed[key]} ends of its jobs"


def _unverified(job: Job) -> set[str]:
    """What else may be the end of a job that asked for a digest: its cancel came too late, and there is no digest."""
    return {"session_left_open"} if job.row["verify"] == "file" else set()


def _sessions(site: Installation) -> Iterator[str]:
    """Every unfinished upload at the store belongs to a job whose row still knows it, or says that it was left open."""
    for key, upload in site.store.unfinished().items():
        if upload["session"] in site.store.planted:
            continue
        mine = [job.row for job in site.jobs if job.key == key]
        known = any((row["session"] or {}).get("session") == upload["session"] for row in mine)
        recorded = any("session_left_open" in (row["result"] or {}) for row in mine)
        fresh = any(row["state"] == "failed" for row in mine)
        if mine and not (known or recorded or fresh):
            yield f"an unfinished upload of {key} was left at the store, and nothing says so"


def _histories(site: Installation) -> Iterator[str]:
    """Epochs only grow, and each move begins where the one before has ended."""
    for job in site.jobs:
        epoch, state = 0, None
        for event in job.events:
            if event["epoch"] < epoch:
                yield f"job {job.key}: the history goes back from epoch {epoch} to {event['epoch']}"
            if event["to_state"] is not None:
                if event["from_state"] != state:
                    yield f"job {job.key}: {event['kind']} from {event['from_state']}, but it was {state}"
                state = event["to_state"]
            epoch = max(epoch, event["epoch"])
        if state != job.state:
            yield f"job {job.key} is {job.state}, but its history ends with {state}"


def _logs(site: Installation) -> Iterator[str]:
    for log in site.logs():
        text = log.read_text(errors="replace")
        for forbidden in ("task.broken", "Exception in thread", SECRET_KEY):
            if forbidden in text:
                line = next(line for line in text.splitlines() if forbidden in line)
                yield f"{log.name}: {line}"
