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
    from tests.integration.stores.conformance.conftest import Deadline, Harness
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


def test_an_upload_from_init_to_object(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    driver = harness.driver
    assert driver.head(intent.key, guard) is None
    begun = begin(driver, intent, guard)
    assert listed(driver, intent, begun, guard).slices == []
    send(driver, intent, begun, data, guard, 3, 1, 0, 2)
    found = listed(driver, intent, begun, guard)
    assert [(each.offset_bytes, each.size_bytes) for each in found.slices] == [
        (offset, min(begun.slice_bytes, len(data) - offset)) for offset in range(0, len(data), begun.slice_bytes)
    ]
    assert found.handle == begun.handle
    assert found.size_bytes in {None, len(data)}
    assert driver.head(intent.key, guard) is None, "an upload without its finish was returned as an object"
    driver.finish(intent.key, begun.handle, len(data), guard)
    stored = driver.head(intent.key, guard)
    assert stored is not None
    assert (stored.size_bytes, stored.mark) == (len(data), intent.mark)
    assert harness.content(intent.key) == data
    assert harness.open_uploads() == []


def test_another_process_continues_with_the_handle(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline
) -> None:
    begun = begin(harness.driver, intent, guard)
    send(harness.driver, intent, begun, data, guard, 0, 2)
    other = harness.open()
    assert [each.offset_bytes for each in listed(other, intent, begun, guard).slices] == [0, 2 * SLICE_BYTES]
    send(other, intent, begun, data, guard, 1, 3)
    other.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


def test_a_slice_can_be_sent_again(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(harness.driver, intent, guard)
    send(harness.driver, intent, begun, data, guard, 0, 0, 1, 2, 3, 1)
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


def test_many_threads_send_slices_at_once(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    begun = begin(harness.driver, intent, guard)
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(send, harness.driver, intent, begun, data, guard, number) for number in [0, 1, 2, 3] * 8]
    assert [each.result() for each in sent] == [None] * 32
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


def test_the_stores_slice_size_is_used(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    harness.dictate(slice_bytes=1024 * 1024)
    begun = begin(harness.driver, intent, guard)
    assert begun.slice_bytes == 1024 * 1024
    send(harness.driver, intent, begun, data, guard)
    assert listed(harness.driver, intent, begun, guard).slice_bytes in {None, 1024 * 1024}
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


def test_a_store_may_require_slices_in_order(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    harness.dictate(ordered=True)
    begun = begin(harness.driver, intent, guard)
    assert begun.ordered
    send(harness.driver, intent, begun, data, guard)
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_small_file_goes_in_one_request(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline, size: int
) -> None:
    small = replace(intent, size_bytes=size)
    harness.driver.put_whole(small, memoryview(data)[:size], guard)
    stored = harness.driver.head(intent.key, guard)
    assert stored is not None
    assert (stored.size_bytes, stored.mark) == (size, intent.mark)
    assert harness.content(intent.key) == data[:size]
    algorithm = harness.driver.limits.digest
    if algorithm is not None:
        assert stored.digest == hashlib.new(algorithm, data[:size]).hexdigest()


def test_the_jobs_own_attributes_are_stored_without_our_mark_unless_the_profile_requires_it(
    harness: Harness, intent: Intent, guard: Deadline
) -> None:
    own = replace(intent, attributes="title=a b", size_bytes=3)
    harness.driver.put_whole(own, memoryview(b"abc"), guard)
    marked = replace(own, key="marked")
    harness.open(mark="always").put_whole(marked, memoryview(b"abc"), guard)
    plain, with_mark = harness.driver.head(own.key, guard), harness.driver.head(marked.key, guard)
    assert plain is not None
    assert with_mark is not None
    assert (plain.mark, with_mark.mark) == (None, intent.mark)


def test_an_object_is_replaced_only_with_overwrite(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline
) -> None:
    harness.put_object(intent.key, b"theirs")
    with pytest.raises(ObjectExists):
        harness.driver.init(intent, SLICE_BYTES, None, guard)
    with pytest.raises(ObjectExists):
        harness.driver.put_whole(replace(intent, size_bytes=3), memoryview(b"abc"), guard)
    assert harness.content(intent.key) == b"theirs"
    begun = begin(harness.driver, replace(intent, overwrite=True), guard)
    send(harness.driver, intent, begun, data, guard)
    assert harness.content(intent.key) == b"theirs", "the old object was gone before the new one was finished"
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data
    harness.driver.put_whole(replace(intent, overwrite=True, size_bytes=3), memoryview(b"abc"), guard)
    assert harness.content(intent.key) == b"abc"


def test_a_foreign_unfinished_upload_is_not_mistaken_for_ours(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline
) -> None:
    harness.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
    begun = harness.driver.init(intent, SLICE_BYTES, None, guard)
    assert begun == UploadInProgress()
    found = listed(harness.driver, intent, None, guard)
    assert [each.offset_bytes for each in found.slices] == [0]


def test_a_listing_of_a_foreign_upload_has_another_handle(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline
) -> None:
    begun = begin(harness.driver, intent, guard)
    harness.lose_sessions()
    harness.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
    assert listed(harness.driver, intent, begun, guard).handle != begun.handle


def test_finish_before_the_last_slice_is_incomplete(
    harness: Harness, intent: Intent, data: bytes, guard: Deadline
) -> None:
    begun = begin(harness.driver, intent, guard)
    send(harness.driver, intent, begun, data, guard, 0, 1)
    with pytest.raises(Incomplete):
        harness.driver.finish(intent.key, begun.handle, len(data), guard)
    send(harness.driver, intent, begun, data, guard, 2, 3)
    harness.driver.finish(intent.key, begun.handle, len(data), guard)
    assert harness.content(intent.key) == data


def test_a_lost_session_is_gone_for_every_call(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
    driver = harness.driver
    begun = begin(driver, intent, guard)
    send(driver, intent, begun, data, guard, 0)
    harness.lose_sessions()
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
    assert harness.content(intent.key) == data


class TestAbort:
    @pytest.mark.parametrize("any_session", [False, True], ids=["ours", "any"])
    def test_discards_the_upload(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline, *, any_session: bool
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard, 0, 1)
        assert harness.driver.abort(intent.key, None if any_session else begun.handle, guard) == Aborted()
        assert harness.open_uploads() == []
        assert harness.driver.abort(intent.key, begun.handle, guard) == Aborted()

    @pytest.mark.parametrize("any_session", [False, True], ids=["ours", "any"])
    def test_spares_an_object_that_was_to_be_replaced(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline, *, any_session: bool
    ) -> None:
        harness.put_object(intent.key, b"theirs")
        begun = begin(harness.driver, replace(intent, overwrite=True), guard)
        send(harness.driver, intent, begun, data, guard, 0, 1)
        left = harness.driver.abort(intent.key, None if any_session else begun.handle, guard)
        assert isinstance(left, Aborted | AbortSkipped)
        assert harness.content(intent.key) == b"theirs"
        assert isinstance(left, AbortSkipped) == (harness.open_uploads() != [])

    def test_discards_a_full_upload_by_its_mark(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard)
        assert harness.driver.abort(intent.key, begun.handle, guard, mark=intent.mark) == Aborted()
        assert harness.open_uploads() == []

    def test_discards_a_full_upload_of_the_job_whichever_its_epoch(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        send(harness.driver, intent, begin(harness.driver, intent, guard), data, guard)
        job = intent.mark.rpartition("/")[0]
        assert isinstance(harness.driver.abort(intent.key, None, guard, mark=job[:-1]), AbortSkipped)
        assert harness.driver.abort(intent.key, None, guard, mark=job) == Aborted()
        assert harness.open_uploads() == []

    def test_spares_an_object_of_an_earlier_epoch_beside_a_foreign_upload(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        older = replace(intent, overwrite=True)
        begun = begin(harness.driver, older, guard)
        send(harness.driver, older, begun, data, guard)
        harness.driver.finish(intent.key, begun.handle, len(data), guard)
        begin(harness.driver, replace(older, mark="sliceway/another/1"), guard)
        left = harness.driver.abort(intent.key, None, guard, mark=intent.mark.rpartition("/")[0])
        assert isinstance(left, AbortSkipped)
        assert harness.content(intent.key) == data

    def test_is_skipped_if_the_store_keeps_the_upload_after_the_discard(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard, 0)
        harness.fault("discard", "swallow")
        assert isinstance(harness.driver.abort(intent.key, begun.handle, guard), AbortSkipped)
        assert harness.open_uploads() == [intent.key]

    def test_spares_an_upload_that_was_finished_meanwhile(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard)
        harness.driver.finish(intent.key, begun.handle, len(data), guard)
        for handle in (begun.handle, None):
            harness.driver.abort(intent.key, handle, guard, mark=intent.mark)
            assert harness.content(intent.key) == data

    def test_spares_a_foreign_upload(self, harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
        begun = begin(harness.driver, intent, guard)
        harness.lose_sessions()
        harness.begin_upload(intent.key, len(data), {0: data[:SLICE_BYTES]})
        assert isinstance(harness.driver.abort(intent.key, begun.handle, guard), AbortSkipped)
        assert harness.open_uploads() == [intent.key]

    def test_without_a_response_it_can_be_repeated(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard, 0)
        harness.fault("discard", "cut", when="after")
        with pytest.raises(Transient):
            harness.driver.abort(intent.key, begun.handle, guard)
        harness.heal()
        assert harness.driver.abort(intent.key, begun.handle, guard) == Aborted()
        assert harness.open_uploads() == []


class TestRemove:
    def test_deletes_the_object_with_the_mark(
        self, harness: Harness, intent: Intent, data: bytes, guard: Deadline
    ) -> None:
        begun = begin(harness.driver, intent, guard)
        send(harness.driver, intent, begun, data, guard)
        harness.driver.finish(intent.key, begun.handle, len(data), guard)
        assert harness.driver.remove(intent.key, intent.mark, guard)
        assert harness.object_sizes() == {}
        assert harness.driver.remove(intent.key, intent.mark, guard)

    def test_spares_every_other(self, harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> None:
        harness.put_object(intent.key, b"theirs")
        assert not harness.driver.remove(intent.key, intent.mark, guard)
        assert harness.content(intent.key) == b"theirs"
        other = replace(intent, key=intent.key + "-2")
        send(harness.driver, other, begin(harness.driver, other, guard), data, guard)
        assert harness.driver.remove(other.key, other.mark, guard)
        assert harness.open_uploads() == [other.key], "an upload without its finish was removed as an object"
