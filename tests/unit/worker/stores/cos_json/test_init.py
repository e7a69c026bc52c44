"""The requests of init and of a one-request upload, and their responses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.envelopes import refusal, success
from worker.errors import Permanent, Transient
from worker.protocols.cos_json import LIMITS
from worker.protocols.spec import GIB, MIB
from worker.stores.base import Digests, Session, Stored, UploadInProgress

if TYPE_CHECKING:
    from tests.unit.worker.stores.cos_json.conftest import Store
    from worker.stores.cos_json.driver import CosJsonStore

MARK = "sliceway/0190a-b/3"
SHA = "a9993e364706816aba3e25717850c26c9cd0d89d"
HANDLE = {"session": "s1"}
MAX_DIGEST_BYTES = LIMITS.max_digest_bytes


class TestInit:
    def test_sends_op_first_and_the_names_of_the_documentation(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", slice_size=1048576))
        begun = driver.init(store.intent(key="a b/ü", size_bytes=5 * MIB), 3 * MIB, None, store.guard())
        assert begun == Session({"session": "s1"}, 1048576, ordered=False)
        (sent,) = store.sent
        assert (sent.method, sent.path) == ("POST", "/files/v2/10055004/accesslog/a%20b/%C3%BC")
        assert sent.fields == [
            ("op", b"upload_slice_init"),
            ("filesize", b"5242880"),
            ("slice_size", b"3145728"),
            ("biz_attr", MARK.encode()),
            ("insertOnly", b"1"),
        ]
        assert "transfer-encoding" not in sent.headers

    def test_digests_require_slices_of_one_mebibyte_and_are_sent_as_compact_json(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        store.returns(success(session="s1", slice_size=1048576))
        parts = [{"offset": 0, "datalen": 7, "datasha": SHA}]
        begun = driver.init(store.intent(), 3 * MIB, Digests("sha1", SHA, parts), store.guard())
        assert begun == Session({"session": "s1", "sha": SHA}, MIB)
        (sent,) = store.sent
        assert (sent["slice_size"], sent["sha"]) == ("1048576", SHA)
        assert sent["uploadparts"] == f'[{{"offset":0,"datalen":7,"datasha":"{SHA}"}}]'

    def test_files_whose_states_would_not_fit_are_refused_before_anything_is_sent(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        with pytest.raises(Permanent) as caught:
            driver.init(store.intent(size_bytes=MAX_DIGEST_BYTES + 1), MIB, Digests("sha1", SHA, []), store.guard())
        assert caught.value.code == "digest_too_large"
        assert "verify" in caught.value.advice
        assert store.sent == []

    def test_the_states_of_the_largest_file_stay_below_four_mebibytes(self) -> None:
        last = {"offset": MAX_DIGEST_BYTES - MIB, "datalen": MIB, "datasha": SHA}
        assert len(json.dumps(last, separators=(",", ":")) + ",") * (MAX_DIGEST_BYTES // MIB) < 4 * MIB
        assert MAX_DIGEST_BYTES >= 32 * GIB

    @pytest.mark.parametrize("requested", [512 * 1024, 3 * MIB])
    def test_after_a_refused_slice_size_one_mebibyte_is_requested(
        self, store: Store, driver: CosJsonStore, requested: int
    ) -> None:
        store.returns(refusal(-284), success(session="s1", slice_size=MIB))
        assert driver.init(store.intent(), requested, None, store.guard()) == Session(HANDLE, MIB)
        assert [sent["slice_size"] for sent in store.sent] == [str(requested), "1048576"]

    def test_a_second_refusal_of_the_slice_size_is_final(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(refusal(-284))
        with pytest.raises(Permanent):
            driver.init(store.intent(), 3 * MIB, None, store.guard())
        assert len(store.sent) == 2
        with pytest.raises(Permanent):
            driver.init(store.intent(), MIB, None, store.guard())
        assert len(store.sent) == 3

    @pytest.mark.parametrize("code", [-4019, -4020])
    def test_the_response_for_an_unfinished_upload_is_the_same_for_every_content(
        self, store: Store, driver: CosJsonStore, code: int
    ) -> None:
        store.returns(refusal(code, 409))
        assert driver.init(store.intent(), MIB, None, store.guard()) == UploadInProgress()
        assert driver.init(store.intent(), MIB, Digests("sha1", SHA, []), store.guard()) == UploadInProgress()

    @pytest.mark.parametrize(
        "answer", [success(access_url="http://a.test/k"), refusal(-4018, 409)], ids=["instant", "-4018"]
    )
    def test_the_store_may_have_the_file_already(
        self, store: Store, driver: CosJsonStore, answer: httpx.Response
    ) -> None:
        store.returns(answer)
        assert isinstance(driver.init(store.intent(), MIB, Digests("sha1", SHA, []), store.guard()), Stored)

    def test_slices_are_ordered_if_the_store_requires_it(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", slice_size=MIB, serial_upload=1))
        assert driver.init(store.intent(), MIB, None, store.guard()) == Session(HANDLE, MIB, ordered=True)

    @pytest.mark.parametrize("data", [{"session": "s1"}, {"session": "s1", "slice_size": None}])
    def test_the_requested_size_is_used_if_the_response_has_none(
        self, store: Store, driver: CosJsonStore, data: dict[str, Any]
    ) -> None:
        store.returns(success(**data))
        assert driver.init(store.intent(), 2 * MIB, None, store.guard()) == Session(HANDLE, 2 * MIB)
        store.responses.clear()
        store.returns(refusal(-284), success(**data))
        assert driver.init(store.intent(), 2 * MIB, None, store.guard()) == Session(HANDLE, MIB)

    def test_codes_and_numbers_may_come_as_text(self, store: Store, driver: CosJsonStore) -> None:
        data = {"session": "s1", "slice_size": str(MIB), "serial_upload": "1"}
        store.returns(httpx.Response(200, json={"code": "0", "message": "SUCCESS", "data": data}))
        assert driver.init(store.intent(), MIB, None, store.guard()) == Session(HANDLE, MIB, ordered=True)
        store.responses.clear()
        store.returns(httpx.Response(409, json={"code": "-4019", "message": "NO"}))
        assert driver.init(store.intent(), MIB, None, store.guard()) == UploadInProgress()

    @pytest.mark.parametrize("data", [{}, {"slice_size": MIB}, {"session": "s1", "slice_size": 0}])
    def test_a_success_without_a_usable_session_is_a_bad_answer(
        self, store: Store, driver: CosJsonStore, data: dict[str, Any]
    ) -> None:
        store.returns(success(**data))
        with pytest.raises(Transient) as caught:
            driver.init(store.intent(), MIB, None, store.guard())
        assert (caught.value.code, caught.value.counts_as_attempt) == ("bad_answer", True)

    @pytest.mark.parametrize(
        ("size_bytes", "given", "usable"),
        [
            (GIB, 64 * 1024, True),
            (GIB, 1024, False),
            (GIB, 3 * MIB + 1, True),
            (GIB, 16 * MIB, True),
            (GIB, 16 * MIB + 1, False),
            (100, 1, True),
            (4096 * GIB, 3 * MIB, True),
        ],
    )
    def test_a_slice_size_beyond_the_limits_is_a_bad_answer(
        self, store: Store, driver: CosJsonStore, size_bytes: int, given: int, *, usable: bool
    ) -> None:
        """One wrong response must not cause millions of rows or exhaust the worker's memory."""
        store.returns(success(session="s1", slice_size=given))
        intent = replace(store.intent(), size_bytes=size_bytes)
        if usable:
            assert driver.init(intent, 3 * MIB, None, store.guard()) == Session(HANDLE, given)
        else:
            with pytest.raises(
                Transient, match=f"wants slices of {given} bytes; a worker sends slices of at most 16777216"
            ):
                driver.init(intent, 3 * MIB, None, store.guard())

    def test_a_slice_size_above_the_files_size_is_used(self, store: Store, driver: CosJsonStore) -> None:
        store.returns(success(session="s1", slice_size=2**40))
        assert driver.init(store.intent(), 3 * MIB, None, store.guard()) == Session(HANDLE, 16 * MIB)

    @pytest.mark.parametrize(
        ("mark", "attributes", "expected"),
        [
            ("auto", None, MARK),
            ("auto", "", MARK),
            ("auto", "theirs", "theirs"),
            ("always", None, MARK),
            ("always", "theirs", f"theirs {MARK}"),
        ],
    )
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_the_mark_goes_into_the_attributes_and_is_found_there(
        self, store: Store, mark: str, attributes: str | None, expected: str, *, overwrite: bool
    ) -> None:
        driver = store.driver(mark=mark)
        there = success(biz_attr=expected, filesize=7, filelen=7)
        store.returns(success(session="s1", slice_size=MIB), success(), there)
        wanted = store.intent(attributes=attributes, overwrite=overwrite)
        driver.init(wanted, MIB, None, store.guard())
        driver.put_whole(wanted, memoryview(b"content"), store.guard())
        assert [sent["biz_attr"] for sent in store.sent] == [expected, expected]
        assert [sent["insertOnly"] for sent in store.sent] == ["0" if overwrite else "1"] * 2
        store.returns(refusal(-197, 404), there)
        found = driver.head("a/k", store.guard())
        assert found is not None
        assert found.mark == (MARK if MARK in expected else None)
        driver.close()
