"""Sending, listing and finishing, with responses that the emulator does not give."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.envelopes import success
from worker.errors import Transient
from worker.protocols.spec import MIB
from worker.stores.base import Listing, SliceAck, Stored, UploadedSlice

if TYPE_CHECKING:
    from tests.unit.worker.stores.cos_json.conftest import Store
    from worker.stores.cos_json.driver import CosJsonStore

SHA = "a9993e364706816aba3e25717850c26c9cd0d89d"
HANDLE = {"session": "s1"}


class TestSlices:
    @pytest.mark.parametrize("handle", [HANDLE, {"session": "s1", "sha": SHA}])
    def test_the_files_sha_is_repeated_and_the_bytes_are_last(
        self, store: Store, driver: CosJsonStore, handle: dict[str, str]
    ) -> None:
        store.returns(success(session="s1", offset=MIB, datalen=3, datamd5="x"))
        assert driver.put_slice("k", handle, MIB, memoryview(b"abc"), store.guard()) == SliceAck()
        (sent,) = store.sent
        sha = [("sha", SHA.encode())] if "sha" in handle else []
        assert sent.fields == [
            ("op", b"upload_slice_data"),
            ("session", b"s1"),
            ("offset", b"1048576"),
            *sha,
            ("filecontent", b"abc"),
        ]

    @pytest.mark.parametrize(
        "echo",
        [
            {"session": "s2"},
            {"offset": 1},
            {"datalen": 2},
            {"session": "s2", "offset": 0},
            {"session": "s1", "offset": 1},
            {"session": "s1", "offset": "x"},
            {"session": 7, "offset": 0},
            {"session": "s1", "offset": 0, "datalen": 2},
            {"session": "s1", "offset": 0, "datalen": 0},
            {"session": "s2", "offset": 0, "access_url": "http://a.test/k"},
        ],
    )
    def test_an_acknowledgement_of_another_slice_is_an_error(
        self, store: Store, driver: CosJsonStore, echo: dict[str, Any]
    ) -> None:
        store.returns(success(**echo))
        with pytest.raises(Transient) as caught:
            driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard())
        assert (caught.value.code, caught.value.counts_as_attempt) == ("wrong_echo", True)

    @pytest.mark.parametrize(
        "echo", [{}, {"session": "s1"}, {"offset": 0}, {"datalen": 3}, {"session": None, "offset": None}]
    )
    def test_a_missing_echo_is_no_error(self, store: Store, driver: CosJsonStore, echo: dict[str, Any]) -> None:
        store.returns(success(**echo))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()

    def test_the_response_to_the_last_slice_may_be_the_object(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(access_url="http://a.test/k", url="http://a.test/k?sign=x"))
        found = driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard())
        assert found == Stored(details={"access_url": "http://a.test/k", "url": "http://a.test/k"})

    def test_the_offset_may_come_back_as_text(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", offset="0"))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), store.guard()) == SliceAck()

    @pytest.mark.parametrize(
        "listparts",
        [
            [{"offset": 0, "datalen": 5}, {"offset": 5, "datalen": 2}],
            [{"offset": 5, "datalen": 2}, {"offset": 0, "datalen": 5}],
            '[{"offset": 0, "datalen": 5}, {"offset": "5", "datalen": "2"}]',
        ],
    )
    def test_a_list_is_read_in_all_its_forms(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.returns(success(session="s1", slice_size="5", filesize=7, sha=f"{SHA}_1", listparts=listparts))
        assert driver.list_slices("k", None, store.guard()) == Listing(
            handle={"session": "s1", "sha": SHA},
            slices=[UploadedSlice(0, 5), UploadedSlice(5, 2)],
            slice_bytes=5,
            size_bytes=7,
            digest=SHA,
        )
        assert store.sent[0].fields == [("op", b"upload_slice_list")]

    @pytest.mark.parametrize("listparts", [None, "", [], "[]"])
    def test_a_list_may_be_empty(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.returns(success(session="s1", listparts=listparts))
        assert driver.list_slices("k", None, store.guard()) == Listing(handle=HANDLE, slices=[])

    @pytest.mark.parametrize(
        "listparts", ["x", 7, [7], [{"offset": 0}], [{"offset": "x", "datalen": 1}], {"a": 1}, [None]]
    )
    def test_an_unreadable_list_is_a_bad_answer(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.returns(success(session="s1", listparts=listparts))
        with pytest.raises(Transient) as caught:
            driver.list_slices("k", None, store.guard())
        assert caught.value.code == "bad_answer"

    @pytest.mark.parametrize(
        ("known", "listed", "expected"),
        [
            ({"session": "s1", "sha": SHA}, {}, {"session": "s1", "sha": SHA}),
            ({"session": "s1"}, {"sha": SHA}, {"session": "s1"}),
            ({"session": "other", "sha": SHA}, {}, {"session": "s1"}),
            (None, {}, {"session": "s1"}),
            (None, {"sha": SHA}, {"session": "s1", "sha": SHA}),
            (None, {"sha": "0" * 40}, {"session": "s1"}),
        ],
        ids=["ours", "ours-without-sha", "another-session", "nothing-known", "named", "zeros-name-none"],
    )
    def test_the_handle_of_a_list_is_ours_if_the_session_is(
        self, store: Store, driver: CosJsonStore, known: Any, listed: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        store.returns(success(session="s1", **listed))
        found = driver.list_slices("k", known, store.guard())
        assert isinstance(found, Listing)
        assert found.handle == expected
        assert found.digest == (SHA if "sha" in listed and listed["sha"] == SHA else None)

    def test_finish_repeats_size_and_sha(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(access_url="http://a.test/k"))
        done = driver.finish("k", {"session": "s1", "sha": SHA}, 7, store.guard())
        assert done == Stored(details={"access_url": "http://a.test/k"})
        expected = [("op", b"upload_slice_finish"), ("session", b"s1"), ("filesize", b"7"), ("sha", SHA.encode())]
        assert store.sent[0].fields == expected

    @pytest.mark.parametrize("body", [b"", b"content"])
    def test_a_small_file_is_sent_with_its_sha(self, store: Store, driver: CosJsonStore, body: bytes) -> None:
        store.returns(success(access_url="http://a.test/k"))
        sha = hashlib.sha1(body).hexdigest()  # noqa: S324 - the protocol's
        done = driver.put_whole(store.intent(size_bytes=len(body)), memoryview(body), store.guard())
        assert (done.size_bytes, done.digest) == (len(body), sha)
        assert [name for name, _ in store.sent[0].fields] == ["op", "sha", "biz_attr", "insertOnly", "filecontent"]
        assert dict(store.sent[0].fields)["sha"] == sha.encode()
        assert dict(store.sent[0].fields)["filecontent"] == body
