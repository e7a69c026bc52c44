"""The events that components emit, in the order in which a job meets them. `docs/events.md` shows this table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event.

    Attributes:
        level: at which the log writes it.
        fields: name -> meaning and unit; None is a value of those that say so.
        meaning: what has happened.
    """

    level: int
    fields: Mapping[str, str]
    meaning: str


_JOB = {"job_id": "the job", "store": "its store", "tenant": "its tenant"}
_CLAIM = {"job_id": "the job", "number": "the slice, or null for the job's own step", "store": "its store"}

EVENTS: Mapping[str, Event] = {
    "job.enqueued": Event(logging.DEBUG, _JOB, "The API has accepted a job, and it is committed."),
    "job.dispatched": Event(
        logging.DEBUG,
        {**_CLAIM, "state": "of the job"},
        "The dispatcher has marked a step or a slice, and published its message.",
    ),
    "claim.granted": Event(
        logging.DEBUG,
        _CLAIM,
        "A worker has taken the step or slice of a message.",
    ),
    "slice.sent": Event(
        logging.DEBUG,
        {
            "store": "the store",
            "size_bytes": "of the request's content",
            "took_s": "seconds, without the wait for a slot",
        },
        "The store has answered a request that carried bytes of a file.",
    ),
    "slice.checkpointed": Event(
        logging.DEBUG,
        {"job_id": "the job", "number": "the slice", "slices_left": "of the job; null where it has ended"},
        "The slice is recorded as done.",
    ),
    "task.deferred": Event(logging.INFO, {"code": "the error's code"}, "A claim went back, to be dispatched again."),
    "task.failed": Event(logging.INFO, {"code": "the error's code"}, "A claim has ended its job badly."),
    "job.succeeded": Event(logging.DEBUG, _JOB, "The object at the key is proven to be the job's file."),
    "job.abandoned": Event(
        logging.INFO, {"job_id": "the job"}, "An abandoned job has ended; its session is left open at the store."
    ),
    "store.unusable": Event(
        logging.WARNING,
        {"store": "the store", "code": "of the error", "message": "the error", "advice": "what to do"},
        "A store's breaker has opened: its jobs wait, and one probe a minute goes out.",
    ),
    "store.usable_again": Event(logging.INFO, {"store": "the store"}, "The breaker has closed."),
    "worker.dead": Event(
        logging.WARNING, {"worker": "its id", "name": "host and process"}, "A worker was silent for too long."
    ),
    "claim.freed": Event(
        logging.WARNING,
        {"job_id": "the job", "number": "the slice, or null", "deaths": "workers that have died at it so far"},
        "The leader took a step or slice back from a worker that is dead, stopped or stuck.",
    ),
    "command.done": Event(
        logging.INFO,
        {
            "command": "cancel, abandon, retry, pause, resume, priority or start",
            "job_id": "the job",
            "actor": "whose key it was, or `operator`",
            "outcome": "the job's new state, or the code of the refusal",
        },
        "A command on a job was carried out or refused.",
    ),
}
"""Name -> event. Names and fields are a promise to subscribers and to readers of the log."""
