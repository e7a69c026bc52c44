"""Every class of failure has its consequence, and an interruption uses up neither attempts nor time."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import errors
from worker.jobs.retry import (
    ATTEMPTS_MAX,
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    ROOT_WAIT_MAX_S,
    SESSION_LOSSES_MAX,
    STORE_CHANGED_WAIT_S,
    WAITING_CODES,
    Again,
    Fresh,
    GiveUp,
    History,
    decide,
)

FIRST = History(
    attempts=0,
    failing_for=None,
    last_code=None,
    session_losses=0,
    retry_for=timedelta(hours=24),
    wait_for=timedelta(days=7),
)
#: The decision after the first failure of a class: its kind, and whether it counts as an attempt.
COUNTS, IN_TIME, WAITS, FRESH, OVER = (Again, True), (Again, False), (Again, False), (Fresh, False), (GiveUp, False)
CONSEQUENCE: dict[type[errors.SlicewayError], tuple[type, bool]] = {
    errors.SlicewayError: COUNTS,
    errors.SourceError: OVER,
    errors.SourceChanged: OVER,
    errors.SourceGone: OVER,
    errors.SourceRefused: OVER,
    errors.RootUnavailable: WAITS,
    errors.StoreError: COUNTS,
    errors.Transient: IN_TIME,
    errors.Throttled: IN_TIME,
    errors.StoreUnusable: WAITS,
    errors.SessionGone: FRESH,
    errors.Permanent: OVER,
    errors.Unknown: COUNTS,
    errors.ObjectExists: OVER,
    errors.Incomplete: COUNTS,
}
#: Classes that no task decides on: of the API, of the start, and of a claim that is gone.
ELSEWHERE = {
    errors.SettingsError,
    errors.Refused,
    errors.NotFound,
    errors.Conflict,
    errors.QuotaExceeded,
    errors.NotSupported,
    errors.Forbidden,
    errors.StaleClaim,
}
BY_ITSELF = {errors.Interrupted}


histories = st.builds(
    History,
    attempts=st.integers(0, ATTEMPTS_MAX - 1),
    failing_for=st.none() | st.timedeltas(timedelta(0), timedelta(days=30)),
    last_code=st.sampled_from([None, "store_unavailable", "internal", *sorted(WAITING_CODES)]),
    session_losses=st.integers(0, SESSION_LOSSES_MAX),
    retry_for=st.timedeltas(timedelta(seconds=1), timedelta(days=10)),
    wait_for=st.timedeltas(timedelta(seconds=1), timedelta(days=10)),
)
seeds = st.integers(0, 2**32).map(random.Random)
waits = st.sampled_from(
    [
        errors.RootUnavailable("r"),
        errors.StoreUnusable("s"),
        errors.StoreUnusable("s", code="store_changed", advice="put it back"),
    ]
)


def test_every_class_of_error_has_its_row() -> None:
    known = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SlicewayError) and kind.__module__ == errors.__name__
    }
    assert known == set(CONSEQUENCE) | ELSEWHERE | BY_ITSELF


@pytest.mark.parametrize("kind", CONSEQUENCE, ids=lambda kind: kind.__name__)
def test_the_first_failure_of_each_class(kind: type[errors.SlicewayError]) -> None:
    decision = decide(kind("what happened"), FIRST)
    assert (type(decision), getattr(decision, "attempt", False)) == CONSEQUENCE[kind]


@pytest.mark.parametrize("stop", errors.Stop)
def test_an_interruption_leaves_no_trace_unless_the_deadline_passed(stop: errors.Stop) -> None:
    decision = decide(errors.Interrupted(stop), FIRST)
    if stop is not errors.Stop.DEADLINE:
        assert decision == Again(None)
        return
    assert isinstance(decision, Again)
    assert decision.error is not None
    assert (decision.error["code"], decision.error["unanswered"]) == ("slice_stalled", True)
    assert decision.delay is not None


@given(st.sampled_from(errors.Stop), histories, seeds)
def test_an_interruption_never_counts_as_an_attempt(stop: errors.Stop, history: History, chance: random.Random) -> None:
    decision = decide(errors.Interrupted(stop), history, chance)
    assert not getattr(decision, "attempt", False)
    if stop is not errors.Stop.DEADLINE:
        assert decision == Again(None)


@given(waits, histories, seeds)
def test_waiting_never_counts_as_an_attempt_and_ends_only_with_its_own_limit(
    error: errors.SlicewayError, history: History, chance: random.Random
) -> None:
    decision = decide(error, history, chance)
    went_on = history.last_code in WAITING_CODES
    too_long = went_on and history.failing_for is not None and history.failing_for > history.wait_for
    assert isinstance(decision, GiveUp if too_long else Again)
    if isinstance(decision, Again):
        assert not decision.attempt
        assert decision.restart_clock is not went_on


@given(
    st.sampled_from(
        [errors.Transient("t"), errors.Throttled("t"), errors.Unknown("u"), errors.Interrupted(errors.Stop.DEADLINE)]
    ),
    histories,
    seeds,
)
def test_failing_ends_with_retry_for_and_never_with_the_time_spent_waiting(
    error: errors.SlicewayError, history: History, chance: random.Random
) -> None:
    decision = decide(error, replace(history, attempts=0), chance)
    waited = history.last_code in WAITING_CODES
    too_long = not waited and history.failing_for is not None and history.failing_for > history.retry_for
    assert isinstance(decision, GiveUp if too_long else Again)
    if isinstance(decision, Again):
        assert decision.restart_clock is waited


def test_waiting_and_failing_use_clocks_of_their_own() -> None:
    """Ten days of waiting do not count as failing, nor the reverse; each restarts the clock."""
    long = replace(FIRST, failing_for=timedelta(days=10))
    assert decide(errors.Transient("t"), replace(long, last_code="root_unavailable")) == AnyAgain(restart=True)
    assert decide(errors.RootUnavailable("r"), replace(long, last_code="store_unavailable")) == AnyAgain(restart=True)
    assert isinstance(decide(errors.Transient("t"), replace(long, last_code="store_unavailable")), GiveUp)
    assert isinstance(decide(errors.RootUnavailable("r"), replace(long, last_code="root_unavailable")), GiveUp)


class AnyAgain:
    """Equal to any `Again` with this clock."""

    def __init__(self, *, restart: bool) -> None:
        self.restart = restart

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Again) and other.restart_clock is self.restart

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "error",
    [
        errors.Transient("t", counts_as_attempt=True),
        errors.Unknown("u"),
        errors.Incomplete("i"),
        errors.SlicewayError("s"),
        ValueError("v"),
    ],
)
def test_attempts_are_bounded(error: Exception) -> None:
    history, dispatches = FIRST, 0
    while True:
        dispatches += 1
        decision = decide(error, history)
        if isinstance(decision, GiveUp):
            break
        assert isinstance(decision, Again)
        assert decision.attempt
        history = replace(history, attempts=history.attempts + 1)
    assert dispatches == ATTEMPTS_MAX


@given(histories, seeds)
def test_the_delay_is_bounded(history: History, chance: random.Random) -> None:
    decision = decide(errors.Transient("t"), history, chance)
    if isinstance(decision, Again):
        assert decision.delay is not None
        assert BACKOFF_MIN_S <= decision.delay.total_seconds() <= BACKOFF_MAX_S


def test_the_delay_grows_with_the_time_in_failure_and_is_spread_over_all_of_it() -> None:
    """Full jitter: slices that failed together are not retried together."""
    chance = random.Random(7)
    for failing_s, ceiling_s in ((0.2, 1.0), (20.0, 20.0), (100_000.0, BACKOFF_MAX_S)):
        history = replace(FIRST, failing_for=timedelta(seconds=failing_s), retry_for=timedelta(days=99))
        delays = [delay_of(decide(errors.Transient("t"), history, chance)) for _ in range(400)]
        assert max(delays) <= ceiling_s
        for part in range(4):
            low, high = ceiling_s * part / 4, ceiling_s * (part + 1) / 4
            assert sum(low <= delay <= high for delay in delays) > 50


def delay_of(decision: Any) -> float:
    assert isinstance(decision, Again)
    assert decision.delay is not None
    return decision.delay.total_seconds()


@given(st.timedeltas(timedelta(0), timedelta(hours=1)), seeds)
def test_a_store_that_asks_for_a_pause_gets_it(pause: timedelta, chance: random.Random) -> None:
    assert delay_of(decide(errors.Throttled("slow down", retry_after=pause), FIRST, chance)) >= pause.total_seconds()


@given(st.timedeltas(timedelta(0), timedelta(days=40)), histories, seeds)
def test_no_pause_outlasts_the_time_that_the_job_has(pause: timedelta, history: History, chance: random.Random) -> None:
    history = replace(history, last_code="store_throttled")
    decision = decide(errors.Throttled("slow down", retry_after=pause), history, chance)
    if isinstance(decision, Again):
        left = history.retry_for - (history.failing_for or timedelta(0))
        assert delay_of(decision) <= max(left.total_seconds(), 0.1)


@given(histories, seeds)
def test_a_root_is_retried_soon(history: History, chance: random.Random) -> None:
    decision = decide(errors.RootUnavailable("r"), replace(history, last_code=None), chance)
    assert delay_of(decision) <= ROOT_WAIT_MAX_S


def test_a_store_that_is_unusable_waits_for_the_breaker_and_a_changed_one_has_its_own_delay() -> None:
    unusable = decide(errors.StoreUnusable("s"), FIRST)
    changed = decide(errors.StoreUnusable("s", code="store_changed"), FIRST)
    assert isinstance(unusable, Again)
    assert unusable.delay is None
    assert delay_of(changed) == STORE_CHANGED_WAIT_S


def test_lost_sessions_are_counted_and_come_back_slower() -> None:
    delays = []
    for losses in range(SESSION_LOSSES_MAX):
        decision = decide(errors.SessionGone("gone"), replace(FIRST, session_losses=losses))
        assert isinstance(decision, Fresh)
        delays.append(decision.delay)
    assert delays[0] is None
    assert delays[1:] == sorted(delay for delay in delays if delay is not None)
    assert isinstance(decide(errors.SessionGone("gone"), replace(FIRST, session_losses=SESSION_LOSSES_MAX)), GiveUp)


def test_a_digest_that_does_not_match_twice_is_no_accident() -> None:
    mismatch = errors.SessionGone("it is other bytes", code="digest_mismatch")
    assert isinstance(decide(mismatch, FIRST), Fresh)
    assert isinstance(decide(mismatch, replace(FIRST, session_losses=1)), GiveUp)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.Transient("t"), "Put right what the message and the store's answer name, then retry."),
        (
            errors.Transient("t", counts_as_attempt=True),
            "Put right what the message and the store's answer name, then retry.",
        ),
        (
            errors.Interrupted(errors.Stop.DEADLINE),
            "Put right what the message and the store's answer name, then retry.",
        ),
        (errors.SessionGone("s"), "Put right what the message and the store's answer name, then retry."),
        (errors.RootUnavailable("r"), "Mount the volume on the workers, then retry."),
        (errors.StoreUnusable("s", advice="Correct it. Waiting jobs go on by themselves."), "Correct it, then retry."),
        (errors.Permanent("p", advice="Choose another key."), "Choose another key."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_advice_of_an_ended_job_does_not_promise_a_retry(error: Exception, advice: str) -> None:
    long_ago = timedelta(days=365)
    code = "root_unavailable" if isinstance(error, errors.RootUnavailable | errors.StoreUnusable) else None
    ended = replace(FIRST, attempts=ATTEMPTS_MAX, failing_for=long_ago, last_code=code, session_losses=9)
    decision = decide(error, ended)
    assert isinstance(decision, GiveUp)
    assert decision.error["advice"] == advice
    if not isinstance(error, errors.Permanent):
        live = decide(error, FIRST)
        assert isinstance(live, Again | Fresh)
        assert live.error is not None
        assert live.error["advice"] == getattr(error, "advice", None)


@given(st.sampled_from(sorted(CONSEQUENCE, key=lambda kind: kind.__name__)), histories, seeds)
def test_a_recorded_error_has_code_message_and_advice(
    kind: type[errors.SlicewayError], history: History, chance: random.Random
) -> None:
    recorded = decide(kind("what happened"), history, chance).error
    assert recorded is not None
    assert all(isinstance(recorded[field], str) and recorded[field] for field in ("code", "message", "advice", "at"))


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (KeyError("x"), {"code": "internal", "message": "KeyError: 'x'"}),
        (errors.Transient("t", answer="HTTP 503"), {"message": "t", "answer": "HTTP 503"}),
        (
            errors.Transient("half \ud800 and \0 of a name 影", answer="\0"),
            {"message": r"half \ud800 and \x00 of a name 影", "answer": r"\x00"},
        ),
    ],
    ids=["our own", "with the store's response", "not storable as it is"],
)
def test_a_recorded_error_keeps_its_fields_as_text_that_a_database_can_store(
    error: Exception, fields: dict[str, str]
) -> None:
    decision = decide(error, FIRST)
    assert isinstance(decision, Again)
    assert decision.error is not None
    assert fields.items() <= decision.error.items()
