"""What every store must do when all goes well, and when others were there before."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.errors import Incomplete, ObjectExists, SessionGone, Transient
from worker.stores.base import Aborted, AbortSkipped, Listing, Session, SliceAck, UploadInProgress

if TYPE_CHECKING:
    from tests.integration.stores.conformance.conftest import Bench, Deadline
    from worker.stores.base import Intent, StoreDriver

SLICE_BYTES = 512 * 1024


def begin(driver: StoreDriver, intent: Intent, guard: Deadline) -> Session:
    begun = driver.init(intent, SLICE_BYTES, None, guard)
    assert isinstance(begun, Session)
    return begun


def send(driver: StoreDriver, intent: Intent, begun: Session, data: bytes, guard: Deadline, *numbers: int) -> None:
    for number in numbers or range(-(-len(data) // begun.slice_bytes)):
        offset = number * begun.slice_bytes
        body = memoryview(data)[offset : offset + begun.slice_bytes]
        assert isinstance(driver.put_slice(intent.key, begun.handle, offset, body, guard), SliceAck)


def listed(driver: StoreDriver, intent: Intent, begun: Session | None, guard: Deadline) -> Listing:
    found = driver.list_slices(intent.key, begun.handle if begun else None, guard)
    assert isinstance(found, Listing)
    return found


def test_an_upload_from_init_to_object(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    driver = bench.driver
    assert driver.look(intent.key, guard) is None
    begun = begin(driver, intent, guard)
    assert listed(driver, intent, begun, guard).held == []
    send(driver, intent, begun, data, guard, 3, 1, 0, 2)
    found = listed(driver, intent, begun, guard)
    assert [(held.offset_bytes, held.size_bytes) for held in found.held] == [
        (offset, min(begun.slice_bytes, len(data) - offset)) for offset in range(0, len(data), begun.slice_bytes)
    ]
    assert found.handle == begun.handle
    assert found.size_bytes in {None, len(data)}
    assert driver.look(intent.key, guard) is None, "an upload that only lacks its finish was taken for an object"
    driver.finish(intent.key, begun.handle, len(data), guard)
    stored = driver.look(intent.key, guard)
    assert stored is not None
    assert (stored.size_bytes, stored.mark) == (len(data), intent.mark)
    assert bench.content(intent.key) == data
    assert bench.open_uploads() == []


def test_another_process_goes_on_with_the_handle(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(bench.driver, intent, guard)
    send(bench.driver, intent, begun, data, guard, 0, 2)
    other = bench.open()
    assert [held.offset_bytes for held in listed(other, intent, begun, guard).held] == [0, 2 * SLICE_BYTES]
    send(other, intent, begun, data, guard, 1, 3)
    other.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


def test_a_slice_may_be_sent_again(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(bench.driver, intent, guard)
    send(bench.driver, intent, begun, data, guard, 0, 0, 1, 2, 3, 1)
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


def test_slices_go_at_once_from_many_threads(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(bench.driver, intent, guard)
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(send, bench.driver, intent, begun, data, guard, number) for number in [0, 1, 2, 3] * 8]
    assert [each.result() for each in sent] == [None] * 32
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


def test_the_stores_slice_size_is_taken(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    bench.dictate(slice_bytes=1024 * 1024)
    begun = begin(bench.driver, intent, guard)
    assert begun.slice_bytes == 1024 * 1024
    send(bench.driver, intent, begun, data, guard)
    assert listed(bench.driver, intent, begun, guard).slice_bytes in {None, 1024 * 1024}
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


def test_a_store_may_want_order(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    bench.dictate(ordered=True)
    begun = begin(bench.driver, intent, guard)
    assert begun.ordered
    send(bench.driver, intent, begun, data, guard)
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_small_file_goes_in_one_request(
    bench: Bench, intent: Intent, data: bytes, guard: Deadline, size: int
) -> None:
    small = replace(intent, size_bytes=size)
    bench.driver.put_whole(small, memoryview(data)[:size], guard)
    stored = bench.driver.look(intent.key, guard)
    assert stored is not None
    assert (stored.size_bytes, stored.mark) == (size, intent.mark)
    assert bench.content(intent.key) == data[:size]
    algorithm = bench.driver.limits.digest
    if algorithm is not None:
        assert stored.digest == hashlib.new(algorithm, data[:size]).hexdigest()


def test_attributes_of_the_jobs_own_are_kept_without_our_mark_unless_the_profile_wants_it(
    bench: Bench, intent: Intent, guard: Deadline
) -> None:
    own = replace(intent, attributes="title=a b", size_bytes=3)
    bench.driver.put_whole(own, memoryview(b"abc"), guard)
    marked = replace(own, key="marked")
    bench.open(mark="always").put_whole(marked, memoryview(b"abc"), guard)
    plain, with_mark = bench.driver.look(own.key, guard), bench.driver.look(marked.key, guard)
    assert plain is not None
    assert with_mark is not None
    assert (plain.mark, with_mark.mark) == (None, intent.mark)


def test_an_object_is_not_replaced_unless_it_may_be(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    bench.put_object(intent.key, b"theirs")
    with pytest.raises(ObjectExists):
        bench.driver.init(intent, SLICE_BYTES, None, guard)
    with pytest.raises(ObjectExists):
        bench.driver.put_whole(replace(intent, size_bytes=3), memoryview(b"abc"), guard)
    assert bench.content(intent.key) == b"theirs"
    begun = begin(bench.driver, replace(intent, overwrite=True), guard)
    send(bench.driver, intent, begun, data, guard)
    assert bench.content(intent.key) == b"theirs", "the old object was gone before the new one was there"
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data
    bench.driver.put_whole(replace(intent, overwrite=True, size_bytes=3), memoryview(b"abc"), guard)
    assert bench.content(intent.key) == b"abc"


def test_an_unfinished_upload_is_met_and_not_mistaken_for_ours(
    bench: Bench, intent: Intent, data: bytes, guard: Deadline
) -> None:
    bench.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
    met = bench.driver.init(intent, SLICE_BYTES, None, guard)
    assert met == UploadInProgress()
    found = listed(bench.driver, intent, None, guard)
    assert [held.offset_bytes for held in found.held] == [0]


def test_a_listing_of_anothers_upload_has_another_handle(
    bench: Bench, intent: Intent, data: bytes, guard: Deadline
) -> None:
    begun = begin(bench.driver, intent, guard)
    bench.lose_sessions()
    bench.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
    assert listed(bench.driver, intent, begun, guard).handle != begun.handle


def test_finish_before_the_last_slice_is_incomplete(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(bench.driver, intent, guard)
    send(bench.driver, intent, begun, data, guard, 0, 1)
    with pytest.raises(Incomplete):
        bench.driver.finish(intent.key, begun.handle, len(data), guard)
    send(bench.driver, intent, begun, data, guard, 2, 3)
    bench.driver.finish(intent.key, begun.handle, len(data), guard)
    assert bench.content(intent.key) == data


def test_a_lost_session_is_gone_for_every_call(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
    driver = bench.driver
    begun = begin(driver, intent, guard)
    send(driver, intent, begun, data, guard, 0)
    bench.lose_sessions()
    with pytest.raises(SessionGone):
        driver.put_slice(intent.key, begun.handle, SLICE_BYTES, memoryview(data)[SLICE_BYTES : 2 * SLICE_BYTES], guard)
    with pytest.raises(SessionGone):
        driver.list_slices(intent.key, begun.handle, guard)
    with pytest.raises(SessionGone):
        driver.finish(intent.key, begun.handle, len(data), guard)
    assert driver.abort(intent.key, begun.handle, guard) == Aborted()
    fresh = begin(driver, intent, guard)
    assert fresh.handle != begun.handle
    send(driver, intent, fresh, data, guard)
    driver.finish(intent.key, fresh.handle, len(data), guard)
    assert bench.content(intent.key) == data


class TestAbort:
    @pytest.mark.parametrize("any_session", [False, True], ids=["ours", "any"])
    def test_discards_the_upload(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline, *, any_session: bool
    ) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard, 0, 1)
        assert bench.driver.abort(intent.key, None if any_session else begun.handle, guard) == Aborted()
        assert bench.open_uploads() == []
        assert bench.driver.abort(intent.key, begun.handle, guard) == Aborted()

    @pytest.mark.parametrize("any_session", [False, True], ids=["ours", "any"])
    def test_spares_an_object_that_was_to_be_replaced(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline, *, any_session: bool
    ) -> None:
        bench.put_object(intent.key, b"theirs")
        begun = begin(bench.driver, replace(intent, overwrite=True), guard)
        send(bench.driver, intent, begun, data, guard, 0, 1)
        left = bench.driver.abort(intent.key, None if any_session else begun.handle, guard)
        assert isinstance(left, Aborted | AbortSkipped)
        assert bench.content(intent.key) == b"theirs"
        assert isinstance(left, AbortSkipped) == (bench.open_uploads() != [])

    def test_discards_a_full_upload_by_its_mark(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard)
        assert bench.driver.abort(intent.key, begun.handle, guard, mark=intent.mark) == Aborted()
        assert bench.open_uploads() == []

    def test_discards_a_full_upload_of_the_job_whichever_its_epoch(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        send(bench.driver, intent, begin(bench.driver, intent, guard), data, guard)
        job = intent.mark.rpartition("/")[0]
        assert isinstance(bench.driver.abort(intent.key, None, guard, mark=job[:-1]), AbortSkipped)
        assert bench.driver.abort(intent.key, None, guard, mark=job) == Aborted()
        assert bench.open_uploads() == []

    def test_spares_an_object_of_an_earlier_epoch_beside_a_strangers_upload(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        older = replace(intent, overwrite=True)
        begun = begin(bench.driver, older, guard)
        send(bench.driver, older, begun, data, guard)
        bench.driver.finish(intent.key, begun.handle, len(data), guard)
        begin(bench.driver, replace(older, mark="sliceway/another/1"), guard)
        left = bench.driver.abort(intent.key, None, guard, mark=intent.mark.rpartition("/")[0])
        assert isinstance(left, AbortSkipped)
        assert bench.content(intent.key) == data

    def test_says_so_where_the_store_keeps_what_it_calls_discarded(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard, 0)
        bench.fault("discard", "swallow")
        assert isinstance(bench.driver.abort(intent.key, begun.handle, guard), AbortSkipped)
        assert bench.open_uploads() == [intent.key]

    def test_spares_what_was_finished_meanwhile(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard)
        bench.driver.finish(intent.key, begun.handle, len(data), guard)
        for handle in (begun.handle, None):
            bench.driver.abort(intent.key, handle, guard, mark=intent.mark)
            assert bench.content(intent.key) == data

    def test_spares_a_strangers_upload(self, bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
        begun = begin(bench.driver, intent, guard)
        bench.lose_sessions()
        bench.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
        assert isinstance(bench.driver.abort(intent.key, begun.handle, guard), AbortSkipped)
        assert bench.open_uploads() == [intent.key]

    def test_without_an_answer_it_can_be_repeated(
        self, bench: Bench, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard, 0)
        bench.fault("discard", "cut", when="after")
        with pytest.raises(Transient):
            bench.driver.abort(intent.key, begun.handle, guard)
        bench.heal()
        assert bench.driver.abort(intent.key, begun.handle, guard) == Aborted()
        assert bench.open_uploads() == []


class TestRemove:
    def test_deletes_the_object_with_the_mark(self, bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
        begun = begin(bench.driver, intent, guard)
        send(bench.driver, intent, begun, data, guard)
        bench.driver.finish(intent.key, begun.handle, len(data), guard)
        assert bench.driver.remove(intent.key, intent.mark, guard)
        assert bench.object_sizes() == {}
        assert bench.driver.remove(intent.key, intent.mark, guard)

    def test_spares_every_other(self, bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> None:
        bench.put_object(intent.key, b"theirs")
        assert not bench.driver.remove(intent.key, intent.mark, guard)
        assert bench.content(intent.key) == b"theirs"
        other = replace(intent, key=intent.key + "-2")
        send(bench.driver, other, begin(bench.driver, other, guard), data, guard)
        assert bench.driver.remove(other.key, other.mark, guard)
        assert bench.open_uploads() == [other.key], "an upload that only lacks its finish is no object"
