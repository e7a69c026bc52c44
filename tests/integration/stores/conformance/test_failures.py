"""What every store must do when the server, the network or the profile fails, or when we ourselves say stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import Interrupted, Stop, StoreError, StoreUnusable, Throttled, Transient, Unknown
from worker.stores.base import Listing, SliceAck
from worker.urls import Endpoint

if TYPE_CHECKING:
    from tests.integration.stores.conformance.conftest import Bench, Deadline, Ready, Tight

#: In an order in which none spoils the next, even if it has its effect.
CALLS = ("look", "list", "slice", "init", "whole", "finish")
PUBLISHING = {"finish", "whole"}
HTML = {"status": 200, "body": "<html>captive portal</html>", "content_type": "text/html"}


def failed(ready: Ready, call: str, **arguments: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        ready.call(call, **arguments)
    return caught.value


class TestNoClearAnswer:
    @pytest.mark.parametrize(
        ("fault", "how"),
        [
            ("cut", {}),
            ("cut", {"when": "after"}),
            ("truncate", {}),
            ("raw", HTML),
            ("raw", {**HTML, "status": 502}),
        ],
        ids=["cut", "cut-after-effect", "truncated", "html-200", "html-502"],
    )
    def test_is_unknown_where_it_may_have_published_and_else_for_later(
        self, ready: Ready, fault: str, how: dict[str, Any]
    ) -> None:
        for call in CALLS:
            ready.bench.fault(call, fault, **how)
            error = failed(ready, call)
            assert type(error) is (Unknown if call in PUBLISHING else Transient), call
            assert not getattr(error, "counts_as_attempt", False), f"an outage was counted against this {call}"
            ready.bench.heal()

    def test_a_finish_that_had_its_effect_can_be_looked_up(self, ready: Ready, guard: Deadline) -> None:
        ready.bench.fault("finish", "cut", when="after")
        assert isinstance(failed(ready, "finish"), Unknown)
        stored = ready.bench.driver.look(ready.intent.key, guard)
        assert stored is not None
        assert (stored.size_bytes, stored.mark) == (len(ready.data), ready.intent.mark)

    def test_a_finish_that_had_none_is_not_taken_for_done_and_can_be_repeated(
        self, ready: Ready, guard: Deadline
    ) -> None:
        ready.bench.fault("finish", "cut", when="before")
        assert isinstance(failed(ready, "finish"), Unknown)
        assert ready.bench.driver.look(ready.intent.key, guard) is None
        ready.bench.heal()
        ready.call("finish")
        assert ready.bench.content(ready.intent.key) == ready.data

    def test_a_slice_that_had_its_effect_may_be_sent_again(self, ready: Ready) -> None:
        ready.bench.fault("slice", "cut", when="after", count=1)
        assert type(failed(ready, "slice")) is Transient
        ready.call("slice")

    def test_a_connection_that_the_server_closed_while_idle_is_not_used(self, ready: Ready) -> None:
        ready.bench.fault("look", "cut", when="after", count=1)
        assert type(failed(ready, "look")) is Transient
        for call in CALLS:
            ready.call(call)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"status": 503, "body": "<html>try later</html>"}, Transient),
        ({"status": 429, "body": ""}, Throttled),
        ({"status": 401, "body": "<html>no</html>"}, StoreUnusable),
        ({"status": 403, "body": "<html>no</html>"}, StoreUnusable),
    ],
    ids=["503", "429", "401", "403"],
)
def test_a_gateway_is_understood_without_the_protocols_own_words(
    ready: Ready, how: dict[str, Any], expected: type[StoreError]
) -> None:
    for call in CALLS:
        ready.bench.fault(call, "raw", **how)
        assert type(failed(ready, call)) is expected, call


def test_a_server_that_is_not_there_is_an_outage(ready: Ready) -> None:
    nowhere = ready.bench.open(endpoint=Endpoint.of("http://127.0.0.1:1"))
    for call in CALLS:
        assert type(failed(ready, call, driver=nowhere)) is Transient, call
    with pytest.raises(Transient):
        nowhere.check()


class TestCheck:
    def test_passes_where_all_is_right_and_tells_a_wrong_profile(self, bench: Bench) -> None:
        bench.driver.check()
        for wrong in ({"secret_key": "fake-secret-wrong"}, {"bucket": "another"}):
            with pytest.raises(StoreUnusable):
                bench.open(**wrong).check()

    def test_does_not_wait_for_ever(self, bench: Bench) -> None:
        bench.fault("look", "hold")
        with pytest.raises(Transient):
            bench.open(answer_timeout_s=0.3).check()


class TestStop:
    """A guard that says stop ends the request at its next piece, and with the guard's own error."""

    @pytest.mark.parametrize("stop", [Stop.CANCELLED, Stop.SHUTDOWN])
    def test_within_the_body(self, ready: Ready, deadline: type[Deadline], stop: Stop) -> None:
        class Later(deadline):  # type: ignore[misc,valid-type]
            asked = 0

            def check(self) -> None:
                self.asked += 1
                if self.asked == 4:  # a first piece is on its way: it goes along with the head
                    self.stop = stop
                super().check()

        seen = len(ready.bench.asked("slice"))
        with pytest.raises(Interrupted) as caught:
            ready.call("slice", Later())
        assert caught.value.stop is stop
        (cut,) = ready.bench.asked("slice", count=seen + 1)[seen:]
        assert cut["body_bytes"] < len(ready.data) // 3
        ready.call("slice")

    @pytest.mark.parametrize("call", CALLS)
    def test_an_answer_that_does_not_come_ends_with_the_deadline(self, ready: Ready, tight: Tight, call: str) -> None:
        """The profile alone would wait longer than a test may take."""
        saturated = ready.bench.open(answer_timeout_s=600, finish_timeout_s=600)
        ready.bench.fault(call, "hold")
        error = failed(ready, call, guard=tight, driver=saturated)
        assert type(error) is (Unknown if call in PUBLISHING else Transient)

    def test_an_answer_that_comes_in_drops_ends_with_the_deadline(self, ready: Ready, deadline: type[Deadline]) -> None:
        """Each drop comes well within every timeout; only their sum passes the deadline."""
        ready.bench.fault("list", "drip", delay_s=0.1)
        with pytest.raises((Transient, Interrupted)):
            ready.call("list", deadline(seconds=1.0))

    @pytest.mark.parametrize("stop", [Stop.CANCELLED, Stop.SHUTDOWN])
    def test_once_all_is_sent_the_answer_is_heard(self, ready: Ready, deadline: type[Deadline], stop: Stop) -> None:
        """What the store has taken and says so need not be sent again."""
        ready.bench.fault("slice", "hold", when="after")
        guard, results = deadline(), list[object]()
        sending = threading.Thread(target=lambda: results.append(ready.call("slice", guard)))
        sending.start()
        ready.bench.asked("slice", count=1, state="held")
        guard.stop = stop
        ready.bench.heal()
        sending.join(120)
        assert [type(result) for result in results] == [SliceAck]

    def test_a_revoke_is_obeyed_even_then(self, ready: Ready, deadline: type[Deadline]) -> None:
        """It would be lost otherwise: the operator wants the job paused."""
        ready.bench.fault("slice", "hold", when="after")
        guard, stops = deadline(), list[Stop]()

        def send() -> None:
            with pytest.raises(Interrupted) as caught:
                ready.call("slice", guard)
            stops.append(caught.value.stop)

        sending = threading.Thread(target=send)
        sending.start()
        ready.bench.asked("slice", count=1, state="held")
        guard.stop = Stop.REVOKED
        ready.bench.heal()
        sending.join(120)
        assert stops == [Stop.REVOKED]

    def test_before_anything_is_sent(self, ready: Ready, deadline: type[Deadline]) -> None:
        for call in CALLS:
            seen = len(ready.bench.asked(call))
            with pytest.raises(Interrupted):
                ready.call(call, deadline(stop=Stop.CANCELLED))
            assert len(ready.bench.asked(call)) == seen

    def test_of_one_thread_does_not_disturb_another(self, ready: Ready, deadline: type[Deadline]) -> None:
        ready.bench.fault("list", "hold")
        results: list[object] = []
        listing = threading.Thread(target=lambda: results.append(ready.call("list")))
        listing.start()
        ready.bench.asked("list", count=1, state="held")
        with pytest.raises(Interrupted):
            ready.call("slice", deadline(stop=Stop.CANCELLED))
        ready.bench.heal()
        listing.join(120)
        assert [type(result) for result in results] == [Listing]


def test_no_error_shows_a_secret(ready: Ready) -> None:
    """Not in the text, not in the answer, not in the causes that a log may print."""
    leaky = f"you signed with {' '.join(ready.bench.secrets)}"
    shown = [repr(ready.bench.driver)]
    for fault, how in [
        ("error", {"status": 403, "code": -48, "message": leaky}),
        ("raw", {"status": 500, "body": leaky}),
        ("cut", {}),
    ]:
        for call in CALLS:
            ready.bench.heal()
            ready.bench.fault(call, fault, **how)
            error: BaseException | None = failed(ready, call)
            assert "\n" not in str(error)
            while error is not None:
                shown.append(f"{error!s} {error!r} {getattr(error, 'answer', '')} {getattr(error, 'advice', '')}")
                error = error.__cause__
    assert "[secret]" in " ".join(shown), "the store's own words were not kept at all"
    assert [secret for secret in ready.bench.secrets if secret in " ".join(shown)] == []
