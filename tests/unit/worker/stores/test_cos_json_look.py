"""What counts as an object, and what may be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest

from worker.errors import Transient
from worker.stores.base import Aborted, LeftOpen, Stored

if TYPE_CHECKING:
    from tests.unit.worker.stores.conftest import Store
    from worker.stores.cos_json import CosJsonStore

MARK = "sliceway/0190a-b/3"
HANDLE = {"session": "s1"}


def ok(**data: Any) -> httpx.Response:
    return httpx.Response(200, json={"code": 0, "message": "SUCCESS", "request_id": "r", "data": data})


def no(code: int, status: int = 400, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "NO"}, headers=headers)


class TestLook:
    OBJECT: ClassVar = {
        "filesize": 7,
        "filelen": "7",
        "sha": "0" * 32,
        "biz_attr": "x",
        "access_url": "http://a.test/k?sign=1",
    }

    def test_an_object_is_described(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(**self.OBJECT, ctime=5), ok(access_url="http://a.test/k"))
        found = driver.look("k", store.guard())
        assert found == Stored(7, None, None, {"access_url": "http://a.test/k", "ctime": "5"})
        assert (store.sent[0].method, store.sent[0].path) == ("GET", "/files/v2/10055004/accesslog/k?op=stat")

    @pytest.mark.parametrize("biz_attr", [f"{MARK} theirs", "sliceway/x", f"not{MARK}", "", None, 7, f"{MARK}x"])
    def test_a_mark_counts_at_the_end_only(self, store: Store, driver: CosJsonStore, biz_attr: object) -> None:
        store.will(ok(**{**self.OBJECT, "biz_attr": biz_attr}), no(-197, 404))
        found = driver.look("k", store.guard())
        assert found is not None
        assert found.mark is None

    def test_what_has_not_all_its_bytes_is_no_object(self, store: Store, driver: CosJsonStore) -> None:
        store.will(ok(**{**self.OBJECT, "filelen": 6}))
        assert driver.look("k", store.guard()) is None

    @pytest.mark.parametrize("data", [{}, {"filesize": 7}, {"filelen": 7}, {"filesize": "x", "filelen": 7}])
    def test_without_both_sizes_nothing_is_known(
        self, store: Store, driver: CosJsonStore, data: dict[str, Any]
    ) -> None:
        store.will(ok(**data))
        with pytest.raises(Transient):
            driver.look("k", store.guard())

    @pytest.mark.parametrize(
        ("listed", "there"),
        [
            ({"session": "s1", "filesize": 7, "listparts": [{"offset": 0, "datalen": 7}]}, False),
            ({"session": "s1", "listparts": [{"offset": 0, "datalen": 7}]}, False),
            ({"session": "s1", "filesize": 9, "listparts": [{"offset": 0, "datalen": 7}]}, True),
            ({"session": "s1", "filesize": 7, "listparts": [{"offset": 0, "datalen": 5}]}, True),
            ({"session": "s1", "filesize": 7}, True),
            ({"access_url": "http://a.test/k"}, True),
        ],
        ids=["full-upload", "full-upload-of-untold-size", "larger-upload", "half-upload", "empty-upload", "finished"],
    )
    def test_an_upload_that_only_lacks_its_finish_is_no_object(
        self, store: Store, driver: CosJsonStore, listed: dict[str, Any], *, there: bool
    ) -> None:
        store.will(ok(**self.OBJECT), ok(**listed))
        assert (driver.look("k", store.guard()) is not None) == there


class TestAbort:
    LISTED = ok(session="s1", filesize=7)
    NOTHING = no(-197, 404)

    @pytest.mark.parametrize("handle", [HANDLE, None], ids=["ours", "any"])
    @pytest.mark.parametrize("deleted", [ok(), no(-197, 404)], ids=["deleted", "gone"])
    def test_deletes_when_nothing_else_is_there(
        self, store: Store, driver: CosJsonStore, handle: Any, deleted: httpx.Response
    ) -> None:
        store.will(self.LISTED, self.NOTHING, deleted, self.NOTHING)
        assert driver.abort("a b", handle, store.guard()) == Aborted()
        listed, looked, sent, _ = store.sent
        assert (sent.method, sent.path, sent.fields) == (
            "POST",
            "/files/v2/10055004/accesslog/a%20b",
            [("op", b"delete")],
        )
        assert sent.headers["content-type"] == "application/json"
        assert (sent.plain["e"], sent.plain["f"]) == ("0", "/10055004/accesslog/a%20b")
        assert int(listed.plain["e"]) == int(listed.plain["t"]) + 300
        assert int(looked.plain["e"]) > 0

    @pytest.mark.parametrize(
        ("answers", "handle"),
        [
            ([ok(access_url="http://a.test/k")], HANDLE),
            ([ok(session="s2")], HANDLE),
            ([ok(session="s1"), ok(filesize=7, filelen=7)], HANDLE),
            ([ok(session="s1"), ok(filesize=7, filelen=7)], None),
        ],
        ids=["finished", "another-session", "object-there", "object-there-any-session"],
    )
    def test_never_deletes_what_could_be_an_object_or_anothers(
        self, store: Store, driver: CosJsonStore, answers: list[httpx.Response], handle: Any
    ) -> None:
        store.will(*answers)
        left = driver.abort("k", handle, store.guard())
        assert isinstance(left, LeftOpen)
        assert left.reason
        assert "delete" not in [dict(sent.fields).get("op", b"").decode() for sent in store.sent]

    def test_nothing_there_is_aborted(self, store: Store, driver: CosJsonStore) -> None:
        store.will(self.NOTHING)
        assert driver.abort("k", HANDLE, store.guard()) == Aborted()
        assert len(store.sent) == 1

    @pytest.mark.parametrize(
        ("after", "outcome"),
        [(LISTED, LeftOpen), (ok(session="s2"), Aborted), (ok(access_url="http://a.test/k"), Aborted)],
        ids=["kept", "another-session", "finished"],
    )
    def test_is_believed_when_the_store_no_longer_lists_it(
        self, store: Store, driver: CosJsonStore, after: httpx.Response, outcome: type
    ) -> None:
        store.will(self.LISTED, self.NOTHING, ok(), after)
        assert type(driver.abort("k", HANDLE, store.guard())) is outcome

    @pytest.mark.parametrize("at", [0, 1])
    def test_without_a_clear_answer_nothing_is_deleted(self, store: Store, driver: CosJsonStore, at: int) -> None:
        store.will(self.LISTED, self.NOTHING)
        store.answers[at] = httpx.ReadTimeout("slow")
        with pytest.raises(Transient):
            driver.abort("k", HANDLE, store.guard())
        assert len(store.sent) == at + 1
