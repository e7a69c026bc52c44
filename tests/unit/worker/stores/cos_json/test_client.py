"""The signature, the guard, the timeouts and the response of a request."""

from __future__ import annotations

import gzip
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.envelopes import refusal, success
from worker.errors import Interrupted, SessionGone, Stop, StoreUnusable, Transient, Unknown
from worker.protocols.spec import MIB
from worker.stores.base import Aborted, Listing, SliceAck

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.worker.stores.cos_json.conftest import Store
    from worker.stores.cos_json.driver import CosJsonStore

HANDLE = {"session": "s1"}


class TestSigning:
    def test_each_request_is_signed_afresh_and_for_its_file(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(access_url="http://a.test/k"))
        for _ in range(2):
            driver.finish("a b", HANDLE, 7, store.guard())
        one, other = (sent.plain for sent in store.sent)
        assert (one["a"], one["k"], one["b"]) == ("10055004", store.secrets[0], "accesslog")
        assert one["f"] == "/10055004/accesslog/a%20b"
        assert one["r"] != other["r"]
        assert abs(int(one["t"]) - time.time()) < 60

    @pytest.mark.parametrize("code", [-59, -96])
    def test_a_wrong_clock_is_corrected_by_the_stores_date_and_the_request_is_repeated(
        self, store: Store, driver: CosJsonStore, code: int
    ) -> None:
        ahead = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        store.returns(refusal(code, 403, Date=ahead), success(session="s1", offset=0))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()
        first, second = store.sent
        assert first.fields == second.fields
        assert abs(int(second.plain["t"]) - int(first.plain["t"]) - 7200) < 60
        driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard())
        assert abs(int(store.sent[2].plain["t"]) - int(second.plain["t"])) < 60

    def test_a_wrong_clock_is_corrected_once(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(refusal(-59, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable) as caught:
            driver.head("k", store.guard())
        assert "clock" in caught.value.advice
        assert len(store.sent) == 2

    @pytest.mark.parametrize(
        "date", [None, "nonsense", "Thu, 01 Jan 2099 00:00:00 GMT"], ids=["none", "nonsense", "absurd"]
    )
    def test_without_a_plausible_date_the_clock_is_not_corrected(
        self, store: Store, driver: CosJsonStore, date: str | None
    ) -> None:
        store.returns(refusal(-59, 403, **({"Date": date} if date else {})))
        with pytest.raises(StoreUnusable):
            driver.head("k", store.guard())
        assert len(store.sent) == 1

    def test_a_used_token_is_replaced_once(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1"), refusal(-197, 404), refusal(-77, 403), success(), refusal(-197, 404))
        assert driver.abort("k", HANDLE, store.guard()) == Aborted()
        assert store.sent[2].plain["r"] != store.sent[3].plain["r"]

    def test_a_wrong_signature_is_not_tried_again(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(refusal(-97, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable):
            driver.head("k", store.guard())
        assert len(store.sent) == 1

    def test_no_text_contains_a_secret(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(refusal(-48, 403))
        with pytest.raises(StoreUnusable) as caught:
            driver.head("k", store.guard())
        shown = f"{caught.value!r} {caught.value.answer} {caught.value.advice} {driver!r} {vars(driver)!r}"
        assert store.secrets[1] not in shown
        assert store.secrets[0] not in shown


class TestGuard:
    def test_it_is_checked_before_each_piece_and_its_error_is_raised(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", offset=0))
        body = memoryview(bytes(MIB))
        guard = store.guard()
        driver.put_slice("k", HANDLE, 0, body, guard)
        assert guard.checks >= 6
        for stop_at in range(1, 7):
            with pytest.raises(Interrupted) as caught:
                driver.put_slice("k", HANDLE, 0, body, store.guard(stop_at=stop_at))
            assert caught.value.stop is Stop.CANCELLED

    def test_nothing_is_sent_if_the_first_check_stops(self, store: Store, driver: CosJsonStore) -> None:
        with pytest.raises(Interrupted):
            driver.head("k", store.guard(stop_at=1))
        assert store.sent == []

    def test_no_timeout_exceeds_the_time_left(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(access_url="http://a.test/k"))
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

    def test_the_response_to_a_slice_may_take_all_the_time_left(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", offset=0))
        driver.put_slice("k", HANDLE, 0, memoryview(bytes(MIB)), store.guard(left_s=1000))
        assert store.sent[0].timeouts == {"connect": 5, "read": 1000, "write": 10, "pool": 5}

    def test_the_response_gets_the_time_that_the_body_left(self, store: Store, driver: CosJsonStore) -> None:
        class Draining(type(store.guard())):
            def check(self) -> None:
                self.left_s /= 2

        store.returns(success(session="s1", offset=0))
        driver.put_slice("k", HANDLE, 0, memoryview(bytes(MIB)), Draining(left_s=16))
        assert store.sent[0].timeouts["read"] < 1


class TestResponses:
    def test_a_redirect_is_not_followed(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(httpx.Response(302, headers={"Location": "http://elsewhere.test/"}))
        with pytest.raises(StoreUnusable):
            driver.head("k", store.guard())
        assert len(store.sent) == 1

    @pytest.mark.parametrize(("op", "expected"), [("finish", Unknown), ("head", Transient)])
    def test_an_endless_response_is_not_read_to_its_end(
        self, store: Store, driver: CosJsonStore, op: str, expected: type[Exception]
    ) -> None:
        read: list[int] = []

        def endless() -> Iterator[bytes]:
            while True:
                read.append(1)
                yield b"x" * 65536

        store.returns(httpx.Response(200, content=endless()))
        with pytest.raises(expected, match="longer than"):
            driver.finish("k", HANDLE, 7, store.guard()) if op == "finish" else driver.head("k", store.guard())
        assert len(read) == 17

    def test_a_response_that_is_compressed_against_the_request_is_read(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        packed = gzip.compress(success(session="s1", offset=0).content)
        store.returns(httpx.Response(200, stream=httpx.ByteStream(packed), headers={"content-encoding": "gzip"}))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()

    def test_a_list_of_many_slices_is_read_whole(self, store: Store, driver: CosJsonStore) -> None:
        parts = [{"offset": number * 3 * MIB, "datalen": 3 * MIB} for number in range(40_000)]
        store.returns(success(session="s1", listparts=parts))
        found = driver.list_slices("k", None, store.guard())
        assert isinstance(found, Listing)
        assert len(found.slices) == 40_000

    def test_check_requires_the_protocols_own_response_that_no_object_is_there(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        store.returns(refusal(-197, 404), success(filesize=1, filelen=1))
        driver.check()
        driver.check()
        assert store.sent[0].path != store.sent[1].path
        store.responses[0] = httpx.Response(404, text="<html>not here</html>")
        with pytest.raises(StoreUnusable, match="does not speak"):
            driver.check()
        store.responses[0] = refusal(-133, 404)
        with pytest.raises(StoreUnusable):
            driver.check()

    def test_a_lost_session_differs_from_a_missing_object(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(refusal(-197, 404))
        assert driver.head("k", store.guard()) is None
        with pytest.raises(SessionGone):
            driver.list_slices("k", None, store.guard())
