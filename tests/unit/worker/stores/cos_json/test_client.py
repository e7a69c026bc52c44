"""How a request is signed, guarded, timed and read."""

from __future__ import annotations

import gzip
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from worker.errors import Interrupted, SessionGone, Stop, StoreUnusable, Transient, Unknown
from worker.protocols.spec import MIB
from worker.stores.base import Aborted, Listing, SliceAck

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.worker.stores.cos_json.conftest import Store
    from worker.stores.cos_json.driver import CosJsonStore

HANDLE = {"session": "s1"}


def ok(**data: Any) -> httpx.Response:
    return httpx.Response(200, json={"code": 0, "message": "SUCCESS", "request_id": "r", "data": data})


def no(code: int, status: int = 400, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "NO"}, headers=headers)


class TestSigning:
    def test_each_request_is_signed_afresh_and_for_its_file(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(access_url="http://a.test/k"))
        for _ in range(2):
            driver.finish("a b", HANDLE, 7, store.guard())
        one, other = (sent.plain for sent in store.sent)
        assert (one["a"], one["k"], one["b"]) == ("10055004", store.secrets[0], "accesslog")
        assert one["f"] == "/10055004/accesslog/a%20b"
        assert one["r"] != other["r"]
        assert abs(int(one["t"]) - time.time()) < 60

    @pytest.mark.parametrize("code", [-59, -96])
    def test_a_wrong_clock_is_corrected_by_the_stores_date_and_the_body_sent_again(
        self, store: Store, driver: CosJsonStore, code: int
    ) -> None:
        ahead = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        store.will(no(code, 403, Date=ahead), ok(session="s1", offset=0))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()
        first, second = store.sent
        assert first.fields == second.fields
        assert abs(int(second.plain["t"]) - int(first.plain["t"]) - 7200) < 60
        driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard())
        assert abs(int(store.sent[2].plain["t"]) - int(second.plain["t"])) < 60

    def test_but_once_only(self, store: Store, driver: CosJsonStore) -> None:
        store.will(no(-59, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable) as caught:
            driver.look("k", store.guard())
        assert "clock" in caught.value.advice
        assert len(store.sent) == 2

    @pytest.mark.parametrize(
        "date", [None, "nonsense", "Thu, 01 Jan 2099 00:00:00 GMT"], ids=["none", "nonsense", "absurd"]
    )
    def test_without_a_believable_date_there_is_nothing_to_correct(
        self, store: Store, driver: CosJsonStore, date: str | None
    ) -> None:
        store.will(no(-59, 403, **({"Date": date} if date else {})))
        with pytest.raises(StoreUnusable):
            driver.look("k", store.guard())
        assert len(store.sent) == 1

    def test_a_used_token_is_replaced_once(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(session="s1"), no(-197, 404), no(-77, 403), ok(), no(-197, 404))
        assert driver.abort("k", HANDLE, store.guard()) == Aborted()
        assert store.sent[2].plain["r"] != store.sent[3].plain["r"]

    def test_a_wrong_signature_is_not_tried_again(self, store: Store, driver: CosJsonStore) -> None:
        store.will(no(-97, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable):
            driver.look("k", store.guard())
        assert len(store.sent) == 1

    def test_secrets_are_in_no_text(self, store: Store, driver: CosJsonStore) -> None:
        store.will(no(-48, 403))
        with pytest.raises(StoreUnusable) as caught:
            driver.look("k", store.guard())
        shown = f"{caught.value!r} {caught.value.answer} {caught.value.advice} {driver!r} {vars(driver)!r}"
        assert store.secrets[1] not in shown
        assert store.secrets[0] not in shown


class TestGuard:
    def test_it_is_asked_before_each_piece_and_its_own_error_comes_out(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        store.will(ok(session="s1", offset=0))
        body = memoryview(bytes(MIB))
        free = store.guard()
        driver.put_slice("k", HANDLE, 0, body, free)
        assert free.asked >= 6
        for stop_at in range(1, 7):
            with pytest.raises(Interrupted) as caught:
                driver.put_slice("k", HANDLE, 0, body, store.guard(stop_at=stop_at))
            assert caught.value.stop is Stop.CANCELLED

    def test_nothing_is_sent_when_it_says_no_at_once(self, store: Store, driver: CosJsonStore) -> None:
        with pytest.raises(Interrupted):
            driver.look("k", store.guard(stop_at=1))
        assert store.sent == []

    def test_no_phase_may_take_longer_than_what_is_left(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(access_url="http://a.test/k"))
        driver.finish("k", HANDLE, 7, store.guard(left_s=1000))
        driver.finish("k", HANDLE, 7, store.guard(left_s=1.5))
        driver.finish("k", HANDLE, 7, store.guard(left_s=0))
        driver.list_slices("k", None, store.guard(left_s=1000))
        assert [sent.timeouts for sent in store.sent] == [
            {"connect": 5, "read": 120, "write": 10, "pool": 5},
            {**dict.fromkeys(("connect", "read", "pool"), 1.5), "write": 10},
            {**dict.fromkeys(("connect", "read", "pool"), 0.1), "write": 10},
            {"connect": 5, "read": 30, "write": 10, "pool": 5},
        ]

    def test_the_answer_to_a_slice_may_take_all_that_is_left(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(session="s1", offset=0))
        driver.put_slice("k", HANDLE, 0, memoryview(bytes(MIB)), store.guard(left_s=1000))
        assert store.sent[0].timeouts == {"connect": 5, "read": 1000, "write": 10, "pool": 5}

    def test_the_answer_gets_what_the_body_left_over(self, store: Store, driver: CosJsonStore) -> None:
        class Draining(type(store.guard())):
            def check(self) -> None:
                self.left_s /= 2

        store.will(ok(session="s1", offset=0))
        driver.put_slice("k", HANDLE, 0, memoryview(bytes(MIB)), Draining(left_s=16))
        assert store.sent[0].timeouts["read"] < 1


class TestAnswers:
    def test_a_redirect_is_not_followed(self, store: Store, driver: CosJsonStore) -> None:
        store.will(httpx.Response(302, headers={"Location": "http://elsewhere.test/"}))
        with pytest.raises(StoreUnusable):
            driver.look("k", store.guard())
        assert len(store.sent) == 1

    @pytest.mark.parametrize(("op", "expected"), [("finish", Unknown), ("look", Transient)])
    def test_an_endless_answer_is_not_read_to_its_end(
        self, store: Store, driver: CosJsonStore, op: str, expected: type[Exception]
    ) -> None:
        read: list[int] = []

        def endless() -> Iterator[bytes]:
            while True:
                read.append(1)
                yield b"x" * 65536

        store.will(httpx.Response(200, content=endless()))
        with pytest.raises(expected, match="longer than"):
            driver.finish("k", HANDLE, 7, store.guard()) if op == "finish" else driver.look("k", store.guard())
        assert len(read) == 17

    def test_an_answer_that_was_compressed_unasked_is_understood(self, store: Store, driver: CosJsonStore) -> None:
        packed = gzip.compress(ok(session="s1", offset=0).content)
        store.will(httpx.Response(200, stream=httpx.ByteStream(packed), headers={"content-encoding": "gzip"}))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()

    def test_a_list_of_many_slices_is_read_whole(self, store: Store, driver: CosJsonStore) -> None:
        parts = [{"offset": number * 3 * MIB, "datalen": 3 * MIB} for number in range(40_000)]
        store.will(ok(session="s1", listparts=parts))
        found = driver.list_slices("k", None, store.guard())
        assert isinstance(found, Listing)
        assert len(found.held) == 40_000

    def test_check_wants_the_protocol_to_say_that_nothing_is_there(self, store: Store, driver: CosJsonStore) -> None:
        store.will(no(-197, 404), ok(filesize=1, filelen=1))
        driver.check()
        driver.check()
        assert store.sent[0].path != store.sent[1].path
        store.answers[0] = httpx.Response(404, text="<html>not here</html>")
        with pytest.raises(StoreUnusable, match="does not speak"):
            driver.check()
        store.answers[0] = no(-133, 404)
        with pytest.raises(StoreUnusable):
            driver.check()

    def test_a_lost_session_is_told_apart_from_a_missing_object(self, store: Store, driver: CosJsonStore) -> None:
        store.will(no(-197, 404))
        assert driver.look("k", store.guard()) is None
        with pytest.raises(SessionGone):
            driver.list_slices("k", None, store.guard())
