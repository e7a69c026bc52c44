"""What follows from a failure: wait, try again, start afresh, or give up. Pure; standard library only.

Attempts count answers that were the slice's or step's own fault. Everything else uses up time: a job fails when it has
been failing for `retry_for` without any progress, or has waited for an unusable store or an unmounted root for
`wait_for`. An interruption of ours uses up neither.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NotRequired, TypedDict

from worker.errors import (
    Interrupted,
    Permanent,
    RootUnavailable,
    SessionGone,
    SlicewayError,
    SourceChanged,
    SourceError,
    Stop,
    StoreError,
    StoreUnusable,
    Throttled,
    Transient,
)

ATTEMPTS_MAX = 8
SESSION_LOSSES_MAX = 5
BACKOFF_MAX_S = 300.0
BACKOFF_MIN_S = 0.1
ROOT_WAIT_MAX_S = 30.0
STORE_CHANGED_WAIT_S = 30.0
PROFILE_CODES = frozenset({"store_changed", "tenant_not_allowed"})
"""Errors of a job whose profiles serve it no longer. They serve others: its store's breaker stays closed."""
WAITING_CODES = PROFILE_CODES | {"root_unavailable", "store_unusable", "proxy_unusable", "tls_unusable"}
"""Errors that wait until an operator has repaired the environment; they have a limit of their own."""


_GOES_ON = re.compile(r"[.;] waiting jobs go on by themselves\.$", re.IGNORECASE)
_WITHOUT_END = "Nothing:"
"""The advice for an error that is retried without an operator begins so."""
_AT_THE_END = "Put right what the message and the store's answer name, then retry."


class ErrorDocument(TypedDict):
    """An error as the job's row, its slices and its history keep it."""

    code: str
    message: str
    advice: str
    at: str
    """ISO 8601, UTC."""
    answer: NotRequired[str]
    """The store's own account of it."""
    unanswered: NotRequired[bool]
    replaced: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class History:
    """What a decision depends on.

    Attributes:
        attempts: answers so far that were this slice's or step's own fault.
        failing_for: time since the first failure after the last progress; None if this is the first.
        last_code: the job's present error code, if any.
        session_losses: sessions lost so far.
        retry_for: how long the job may fail.
        wait_for: how long it may wait for an unusable store or an unmounted root.
    """

    attempts: int
    failing_for: timedelta | None
    last_code: str | None
    session_losses: int
    retry_for: timedelta
    wait_for: timedelta


@dataclass(frozen=True, slots=True)
class Again:
    """Dispatch it again after ``delay`` (None: at once). ``error`` None leaves no trace: the interruption was ours."""

    delay: timedelta | None
    error: ErrorDocument | None = None
    attempt: bool = False
    restart_clock: bool = False


@dataclass(frozen=True, slots=True)
class Fresh:
    """Start a new session."""

    error: ErrorDocument
    delay: timedelta | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    error: ErrorDocument


Decision = Again | Fresh | GiveUp


def describe(error: Exception) -> ErrorDocument:
    """Return an error as the row and the history keep it."""
    if isinstance(error, SlicewayError):
        code, message, advice = error.code, error.message, error.advice
    else:
        code, message, advice = SlicewayError.code, f"{type(error).__name__}: {error}", SlicewayError.advice
    described: ErrorDocument = {
        "code": code,
        "message": _as_text(message),
        "advice": _as_text(advice),
        "at": datetime.now(UTC).isoformat(),
    }
    if isinstance(error, StoreError) and error.answer is not None:
        described["answer"] = _as_text(error.answer)
    if isinstance(error, StoreError) and error.unanswered:
        described["unanswered"] = True
    if isinstance(error, SourceChanged) and error.replaced:
        described["replaced"] = True
    return described


def _as_text(value: str) -> str:
    """Return text that PostgreSQL keeps: what a store answers or a file is called may have NULs and half characters."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def decide(error: Exception, history: History, chance: random.Random | None = None) -> Decision:
    """Decide what follows from ``error``.

    Args:
        error: what happened; anything outside the tree of `worker.errors` is a fault of ours and counts as an attempt.
        history: what happened before.
        chance: where the jitter comes from.
    """
    decision = _decide(error, history, chance or random.Random())  # noqa: S311 - jitter
    if isinstance(decision, GiveUp):
        return GiveUp({**decision.error, "advice": _last_advice(decision.error["advice"])})
    return decision


def _last_advice(advice: str) -> str:
    """Return the advice for a job that has ended: nothing of it goes on by itself any more."""
    return _AT_THE_END if advice.startswith(_WITHOUT_END) else _GOES_ON.sub(", then retry.", advice)


def _decide(  # noqa: PLR0911 - one row a class of failure
    error: Exception, history: History, chance: random.Random
) -> Decision:
    described = describe(error)
    match error:
        case Interrupted(stop=Stop.DEADLINE):
            stalled: ErrorDocument = {
                **described,
                "code": "slice_stalled",
                "message": "the deadline passed: the store took the bytes too slowly",
                "unanswered": True,
            }
            return _in_time(stalled, history, _backoff(history, chance))
        case Interrupted():
            return Again(None)
        case StoreUnusable():
            return _waiting(described, history, timedelta(seconds=STORE_CHANGED_WAIT_S) if _profile(error) else None)
        case RootUnavailable():
            delay = min(_backoff(history, chance).total_seconds(), ROOT_WAIT_MAX_S)
            return _waiting(described, history, timedelta(seconds=delay))
        case SessionGone():
            return _fresh(described, history)
        case SourceError() | Permanent():
            return GiveUp(described)
        case Throttled(retry_after=timedelta() as wait):
            return _in_time(described, history, max(_backoff(history, chance), wait))
        case Transient(counts_as_attempt=False):
            return _in_time(described, history, _backoff(history, chance))
        case _:
            return _attempt(described, history, _backoff(history, chance))


def _profile(error: StoreError) -> bool:
    return error.code in PROFILE_CODES


def _waiting(described: ErrorDocument, history: History, delay: timedelta | None) -> Decision:
    """Wait for the environment. Time spent failing otherwise does not count, nor the other way round."""
    began_now = history.last_code not in WAITING_CODES
    if not began_now and history.failing_for is not None and history.failing_for > history.wait_for:
        return GiveUp(described)
    return Again(delay, described, restart_clock=began_now)


def _in_time(described: ErrorDocument, history: History, delay: timedelta) -> Decision:
    began_now = history.last_code in WAITING_CODES
    failing_for = timedelta(0) if began_now or history.failing_for is None else history.failing_for
    if failing_for > history.retry_for:
        return GiveUp(described)
    # however long the store wants us to wait: there is one more attempt when the time is over, and no later end
    left = max(history.retry_for - failing_for, timedelta(seconds=BACKOFF_MIN_S))
    return Again(min(delay, left), described, restart_clock=began_now)


def _attempt(described: ErrorDocument, history: History, delay: timedelta) -> Decision:
    if history.attempts + 1 >= ATTEMPTS_MAX:
        return GiveUp(described)
    decision = _in_time(described, history, delay)
    if isinstance(decision, Again):
        return Again(decision.delay, described, attempt=True, restart_clock=decision.restart_clock)
    return decision


def _fresh(described: ErrorDocument, history: History) -> Decision:
    # a digest that does not match twice is no accident of the way
    allowed = 1 if described["code"] == "digest_mismatch" else SESSION_LOSSES_MAX
    if history.session_losses >= allowed:
        return GiveUp(described)
    return Fresh(described, timedelta(seconds=2.0**history.session_losses) if history.session_losses else None)


def _backoff(history: History, chance: random.Random) -> timedelta:
    """Wait about as long as it has been failing, with full jitter: each wait doubles the time, up to five minutes."""
    failing_s = history.failing_for.total_seconds() if history.failing_for is not None else 0.0
    ceiling_s = min(BACKOFF_MAX_S, max(1.0, failing_s, 2.0**history.attempts))
    return timedelta(seconds=chance.uniform(BACKOFF_MIN_S, ceiling_s))
