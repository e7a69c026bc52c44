"""What every driver must do if the server, the network or the profile fails, or if the guard stops the request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import Interrupted, Stop, StoreError, StoreUnusable, Throttled, Transient, Unknown
from worker.stores.base import Listing, SliceAck
from worker.urls import Endpoint

if TYPE_CHECKING:
    from tests.integration.stores.conformance.conftest import Deadline, Harness, Ready, ShortDeadline

#: In an order in which the effect of a call does not change the next one.
CALLS = ("head", "list", "slice", "init", "whole", "finish")
PUBLISHING = {"finish", "whole"}
HTML = {"status": 200, "body": "<html>captive portal</html>", "content_type": "text/html"}


def failed(ready: Ready, call: str, **arguments: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        ready.call(call, **arguments)
    return caught.value


class TestNoClearResponse:
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
    def test_is_unknown_if_the_request_may_have_published_and_else_transient(
        self, ready: Ready, fault: str, how: dict[str, Any]
    ) -> None:
        for call in CALLS:
            ready.harness.fault(call, fault, **how)
            error = failed(ready, call)
            assert type(error) is (Unknown if call in PUBLISHING else Transient), call
            assert not getattr(error, "counts_as_attempt", False), f"an outage was counted against this {call}"
            ready.harness.heal()

    def test_a_finish_that_had_its_effect_is_found_by_head(self, ready: Ready, guard: Deadline) -> None:
        ready.harness.fault("finish", "cut", when="after")
        assert isinstance(failed(ready, "finish"), Unknown)
        stored = ready.harness.driver.head(ready.intent.key, guard)
        assert stored is not None
        assert (stored.size_bytes, stored.mark) == (len(ready.data), ready.intent.mark)

    def test_a_finish_without_effect_can_be_repeated(self, ready: Ready, guard: Deadline) -> None:
        ready.harness.fault("finish", "cut", when="before")
        assert isinstance(failed(ready, "finish"), Unknown)
        assert ready.harness.driver.head(ready.intent.key, guard) is None
        ready.harness.heal()
        ready.call("finish")
        assert ready.harness.content(ready.intent.key) == ready.data

    def test_a_slice_that_had_its_effect_can_be_sent_again(self, ready: Ready) -> None:
        ready.harness.fault("slice", "cut", when="after", count=1)
        assert type(failed(ready, "slice")) is Transient
        ready.call("slice")

    def test_an_idle_connection_that_the_server_closed_is_not_reused(self, ready: Ready) -> None:
        ready.harness.fault("head", "cut", when="after", count=1)
        assert type(failed(ready, "head")) is Transient
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
def test_a_response_of_a_gateway_without_an_envelope_has_its_error(
    ready: Ready, how: dict[str, Any], expected: type[StoreError]
) -> None:
    for call in CALLS:
        ready.harness.fault(call, "raw", **how)
        assert type(failed(ready, call)) is expected, call


def test_a_refused_connection_is_an_outage(ready: Ready) -> None:
    nowhere = ready.harness.open(endpoint=Endpoint.of("http://127.0.0.1:1"))
    for call in CALLS:
        assert type(failed(ready, call, driver=nowhere)) is Transient, call
    with pytest.raises(Transient):
        nowhere.check()


class TestCheck:
    def test_accepts_a_right_profile_and_refuses_a_wrong_one(self, harness: Harness) -> None:
        harness.driver.check()
        for wrong in ({"secret_key": "fake-secret-wrong"}, {"bucket": "another"}):
            with pytest.raises(StoreUnusable):
                harness.open(**wrong).check()

    def test_has_a_timeout(self, harness: Harness) -> None:
        harness.fault("head", "hold")
        with pytest.raises(Transient):
            harness.open(answer_timeout_s=0.3).check()


class TestStop:
    """A stop of the guard ends the request at its next piece, with the guard's error."""

    @pytest.mark.parametrize("stop", [Stop.CANCELLED, Stop.SHUTDOWN])
    def test_within_the_body(self, ready: Ready, deadline: type[Deadline], stop: Stop) -> None:
        class Later(deadline):  # type: ignore[misc,valid-type]
            checks = 0

            def check(self) -> None:
                self.checks += 1
                if self.checks == 4:  # the first piece was sent, together with the head
                    self.stop = stop
                super().check()

        seen = len(ready.harness.asked("slice"))
        with pytest.raises(Interrupted) as caught:
            ready.call("slice", Later())
        assert caught.value.stop is stop
        (cut,) = ready.harness.asked("slice", count=seen + 1)[seen:]
        assert cut["body_bytes"] < len(ready.data) // 3
        ready.call("slice")

    @pytest.mark.parametrize("call", CALLS)
    def test_a_missing_response_ends_the_request_at_the_deadline(
        self, ready: Ready, short_deadline: ShortDeadline, call: str
    ) -> None:
        """The timeouts of the profile are longer than any test."""
        driver = ready.harness.open(answer_timeout_s=600, finish_timeout_s=600)
        ready.harness.fault(call, "hold")
        error = failed(ready, call, guard=short_deadline, driver=driver)
        assert type(error) is (Unknown if call in PUBLISHING else Transient)

    def test_a_response_that_comes_byte_by_byte_ends_at_the_deadline(
        self, ready: Ready, deadline: type[Deadline]
    ) -> None:
        """Each byte comes within every timeout; only their sum exceeds the deadline."""
        ready.harness.fault("list", "drip", delay_s=0.1)
        with pytest.raises((Transient, Interrupted)):
            ready.call("list", deadline(seconds=1.0))

    @pytest.mark.parametrize("stop", [Stop.CANCELLED, Stop.SHUTDOWN])
    def test_after_the_last_byte_the_response_is_still_read(
        self, ready: Ready, deadline: type[Deadline], stop: Stop
    ) -> None:
        """A slice that the store acknowledges need not be sent again."""
        ready.harness.fault("slice", "hold", when="after")
        guard, results = deadline(), list[object]()
        sending = threading.Thread(target=lambda: results.append(ready.call("slice", guard)))
        sending.start()
        ready.harness.asked("slice", count=1, state="held")
        guard.stop = stop
        ready.harness.heal()
        sending.join(120)
        assert [type(result) for result in results] == [SliceAck]

    def test_a_revoke_is_obeyed_after_the_last_byte(self, ready: Ready, deadline: type[Deadline]) -> None:
        """Otherwise the revoke would be lost."""
        ready.harness.fault("slice", "hold", when="after")
        guard, stops = deadline(), list[Stop]()

        def send() -> None:
            with pytest.raises(Interrupted) as caught:
                ready.call("slice", guard)
            stops.append(caught.value.stop)

        sending = threading.Thread(target=send)
        sending.start()
        ready.harness.asked("slice", count=1, state="held")
        guard.stop = Stop.REVOKED
        ready.harness.heal()
        sending.join(120)
        assert stops == [Stop.REVOKED]

    def test_before_the_request_nothing_is_sent(self, ready: Ready, deadline: type[Deadline]) -> None:
        for call in CALLS:
            seen = len(ready.harness.asked(call))
            with pytest.raises(Interrupted):
                ready.call(call, deadline(stop=Stop.CANCELLED))
            assert len(ready.harness.asked(call)) == seen

    def test_in_one_thread_does_not_disturb_another(self, ready: Ready, deadline: type[Deadline]) -> None:
        ready.harness.fault("list", "hold")
        results: list[object] = []
        listing = threading.Thread(target=lambda: results.append(ready.call("list")))
        listing.start()
        ready.harness.asked("list", count=1, state="held")
        with pytest.raises(Interrupted):
            ready.call("slice", deadline(stop=Stop.CANCELLED))
        ready.harness.heal()
        listing.join(120)
        assert [type(result) for result in results] == [Listing]


def test_no_error_shows_a_secret(ready: Ready) -> None:
    """Neither in the message, nor in the answer, nor in the causes that a log may print."""
    echo = f"you signed with {' '.join(ready.harness.secrets)}"
    texts = [repr(ready.harness.driver)]
    for fault, how in [
        ("error", {"status": 403, "code": -48, "message": echo}),
        ("raw", {"status": 500, "body": echo}),
        ("cut", {}),
    ]:
        for call in CALLS:
            ready.harness.heal()
            ready.harness.fault(call, fault, **how)
            error: BaseException | None = failed(ready, call)
            assert "\n" not in str(error)
            while error is not None:
                texts.append(f"{error!s} {error!r} {getattr(error, 'answer', '')} {getattr(error, 'advice', '')}")
                error = error.__cause__
    assert "[secret]" in " ".join(texts), "no message of the store was kept"
    assert [secret for secret in ready.harness.secrets if secret in " ".join(texts)] == []
