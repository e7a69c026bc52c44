"""The driver against a store of canned answers: what it sends, and what it makes of answers that no emulator gives."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import policy
from email.parser import BytesParser
from email.utils import format_datetime, formatdate
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from worker.errors import Interrupted, Permanent, SessionGone, Stop, StoreUnusable, Transient, Unknown
from worker.limits import GIB, MIB
from worker.settings import StoreProfile
from worker.stores.base import Aborted, Digests, Held, Intent, LeftOpen, Listing, Put, Session, Stored, Unfinished
from worker.stores.cos_json import DIGEST_BYTES, CosJsonStore

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_ID, SECRET_KEY = "AKIDfakesecretid", "fake-secret-key"
MARK = "sliceway/0190a-b/3"
SHA = "a9993e364706816aba3e25717850c26c9cd0d89d"
HANDLE = {"session": "s1"}


@dataclass
class Free:
    """A guard that lets everything pass, or stops at the n-th question."""

    stop_at: int | None = None
    left_s: float = 60.0
    asked: int = 0

    def check(self) -> None:
        self.asked += 1
        if self.asked == self.stop_at:
            raise Interrupted(Stop.CANCELLED)

    def remaining_s(self) -> float:
        return self.left_s


@dataclass
class Sent:
    """A request as the store would see it."""

    method: str
    path: str
    headers: httpx.Headers
    fields: list[tuple[str, bytes]]
    plain: dict[str, str]
    timeouts: dict[str, float]

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name].decode()


@dataclass
class Store:
    """Answers from a queue (the last one for ever) and keeps what was asked."""

    answers: deque[httpx.Response | Exception] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = b"".join(request.stream)  # type: ignore[arg-type]
        assert len(body) == int(request.headers.get("content-length", 0))
        self.sent.append(
            Sent(
                request.method,
                request.url.raw_path.decode(),
                request.headers,
                _parts(request.headers.get("content-type", ""), body),
                _plain(request.headers["authorization"]),
                dict(request.extensions["timeout"]),
            )
        )
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _parts(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    if not content_type.startswith("multipart/"):
        return [(name, str(value).encode()) for name, value in (json.loads(body) if body else {}).items()]
    message = BytesParser(policy=policy.HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    return [
        (str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True) or b"")
        for part in message.iter_parts()
    ]


def _plain(authorization: str) -> dict[str, str]:
    text = base64.b64decode(authorization, validate=True)[20:].decode()
    return dict(pair.split("=", 1) for pair in text.split("&"))


def ok(**data: Any) -> httpx.Response:
    return httpx.Response(200, json={"code": 0, "message": "SUCCESS", "request_id": "r", "data": data})


def no(code: int, status: int = 400, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "NO"}, headers=headers)


@pytest.fixture
def store() -> Store:
    return Store()


def driver_of(store: Store, **changes: Any) -> CosJsonStore:
    values: dict[str, Any] = {
        "name": "main",
        "protocol": "cos-json",
        "endpoint": "http://store.test",
        "appid": "10055004",
        "bucket": "accesslog",
        "secret_id": SecretStr(SECRET_ID),
        "secret_key": SecretStr(SECRET_KEY),
    }
    return CosJsonStore(StoreProfile(**{**values, **changes}), httpx.MockTransport(store.handle))


@pytest.fixture
def driver(store: Store) -> Iterator[CosJsonStore]:
    driver = driver_of(store)
    yield driver
    driver.close()


def intent(**changes: Any) -> Intent:
    values: dict[str, Any] = {"key": "a/k", "size_bytes": 7, "overwrite": False, "attributes": None, "mark": MARK}
    return Intent(**{**values, **changes})


class TestInit:
    def test_sends_op_first_and_the_names_of_the_documentation(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(session="s1", slice_size=1048576))
        begun = driver.init(intent(key="a b/ü", size_bytes=5 * MIB), 3 * MIB, None, Free())
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

    def test_digests_force_slices_of_one_mebibyte_and_go_along_as_compact_json(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        store.answers.append(ok(session="s1", slice_size=1048576))
        parts = [{"offset": 0, "datalen": 7, "datasha": SHA}]
        begun = driver.init(intent(), 3 * MIB, Digests("sha1", SHA, parts), Free())
        assert begun == Session({"session": "s1", "sha": SHA}, MIB)
        (sent,) = store.sent
        assert (sent["slice_size"], sent["sha"]) == ("1048576", SHA)
        assert sent["uploadparts"] == f'[{{"offset":0,"datalen":7,"datasha":"{SHA}"}}]'

    def test_files_whose_states_would_not_fit_are_refused_before_anything_is_sent(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        assert driver.capabilities.digest_bytes == DIGEST_BYTES
        with pytest.raises(Permanent) as caught:
            driver.init(intent(size_bytes=DIGEST_BYTES + 1), MIB, Digests("sha1", SHA, []), Free())
        assert caught.value.code == "digest_too_large"
        assert "verify" in caught.value.advice
        assert store.sent == []

    def test_the_states_of_the_largest_file_stay_below_four_mebibytes(self) -> None:
        last = {"offset": DIGEST_BYTES - MIB, "datalen": MIB, "datasha": SHA}
        assert len(json.dumps(last, separators=(",", ":")) + ",") * (DIGEST_BYTES // MIB) < 4 * MIB
        assert DIGEST_BYTES >= 32 * GIB

    @pytest.mark.parametrize("wished", [512 * 1024, 3 * MIB])
    def test_a_refused_slice_size_is_asked_for_once_more_as_one_mebibyte(
        self, store: Store, driver: CosJsonStore, wished: int
    ) -> None:
        store.answers.extend([no(-284), ok(session="s1", slice_size=MIB)])
        assert driver.init(intent(), wished, None, Free()) == Session(HANDLE, MIB)
        assert [sent["slice_size"] for sent in store.sent] == [str(wished), "1048576"]

    def test_and_then_it_is_final(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(no(-284))
        with pytest.raises(Permanent):
            driver.init(intent(), 3 * MIB, None, Free())
        assert len(store.sent) == 2
        with pytest.raises(Permanent):
            driver.init(intent(), MIB, None, Free())
        assert len(store.sent) == 3

    @pytest.mark.parametrize("code", [-4019, -4020])
    def test_only_a_sha_proves_that_an_unfinished_upload_is_of_the_same_content(
        self, store: Store, driver: CosJsonStore, code: int
    ) -> None:
        store.answers.append(no(code, 409))
        assert driver.init(intent(), MIB, None, Free()) == Unfinished(same_content=False)
        same = code == -4019
        found = driver.init(intent(), MIB, Digests("sha1", SHA, []), Free())
        assert found == Unfinished(same_content=same, handle={"sha": SHA} if same else None)

    @pytest.mark.parametrize("answer", [ok(access_url="http://a.test/k"), no(-4018, 409)], ids=["instant", "-4018"])
    def test_the_store_may_have_the_file_already(
        self, store: Store, driver: CosJsonStore, answer: httpx.Response
    ) -> None:
        store.answers.append(answer)
        assert isinstance(driver.init(intent(), MIB, Digests("sha1", SHA, []), Free()), Stored)

    def test_slices_go_in_order_where_the_store_says_so(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(session="s1", slice_size=MIB, serial_upload=1))
        assert driver.init(intent(), MIB, None, Free()) == Session(HANDLE, MIB, ordered=True)

    @pytest.mark.parametrize("data", [{}, {"session": "s1"}, {"slice_size": MIB}, {"session": "s1", "slice_size": 0}])
    def test_a_session_that_cannot_be_used_is_none(
        self, store: Store, driver: CosJsonStore, data: dict[str, Any]
    ) -> None:
        store.answers.append(ok(**data))
        with pytest.raises(Transient) as caught:
            driver.init(intent(), MIB, None, Free())
        assert (caught.value.code, caught.value.own_fault) == ("bad_answer", True)

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
        driver = driver_of(store, mark=mark)
        store.answers.extend([ok(session="s1", slice_size=MIB), ok(), ok(biz_attr=expected, filesize=7, filelen=7)])
        wanted = intent(attributes=attributes, overwrite=overwrite)
        driver.init(wanted, MIB, None, Free())
        driver.put_whole(wanted, memoryview(b"content"), Free())
        assert [sent["biz_attr"] for sent in store.sent] == [expected, expected]
        assert [sent["insertOnly"] for sent in store.sent] == ["0" if overwrite else "1"] * 2
        store.answers.append(no(-197, 404))
        found = driver.look("a/k", Free())
        assert found is not None
        assert found.mark == (MARK if MARK in expected else None)
        driver.close()


class TestSlices:
    @pytest.mark.parametrize("handle", [HANDLE, {"session": "s1", "sha": SHA}])
    def test_the_files_sha_is_repeated_and_the_bytes_go_last(
        self, store: Store, driver: CosJsonStore, handle: dict[str, str]
    ) -> None:
        store.answers.append(ok(session="s1", offset=MIB, datalen=3, datamd5="x"))
        assert driver.put_slice("k", handle, MIB, memoryview(b"abc"), Free()) == Put()
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
            {},
            {"session": "s1"},
            {"offset": 0},
            {"session": "s2", "offset": 0},
            {"session": "s1", "offset": 1},
            {"session": "s1", "offset": None},
            {"session": "s1", "offset": 0, "datalen": 2},
            {"session": "s1", "offset": 0, "datalen": 0},
            {"session": "s2", "offset": 0, "access_url": "http://a.test/k"},
        ],
    )
    def test_an_acknowledgement_of_something_else_is_none(
        self, store: Store, driver: CosJsonStore, echo: dict[str, Any]
    ) -> None:
        store.answers.append(ok(**echo))
        with pytest.raises(Transient) as caught:
            driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), Free())
        assert (caught.value.code, caught.value.own_fault) == ("wrong_echo", True)

    def test_the_last_slice_may_be_answered_with_the_object(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(access_url="http://a.test/k", url="http://a.test/k?sign=x"))
        found = driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), Free())
        assert found == Stored(details={"access_url": "http://a.test/k", "url": "http://a.test/k"})

    def test_the_offset_may_come_back_as_text(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(session="s1", offset="0"))
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), Free()) == Put()

    @pytest.mark.parametrize(
        "listparts",
        [
            [{"offset": 0, "datalen": 5}, {"offset": 5, "datalen": 2}],
            [{"offset": 5, "datalen": 2}, {"offset": 0, "datalen": 5}],
            '[{"offset": 0, "datalen": 5}, {"offset": "5", "datalen": "2"}]',
        ],
    )
    def test_a_list_is_read_in_all_its_forms(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.answers.append(ok(session="s1", slice_size="5", filesize=7, sha=f"{SHA}_1", listparts=listparts))
        assert driver.list_slices("k", None, Free()) == Listing(
            handle={"session": "s1", "sha": SHA},
            held=[Held(0, 5), Held(5, 2)],
            slice_bytes=5,
            size_bytes=7,
            digest=SHA,
        )
        assert store.sent[0].fields == [("op", b"upload_slice_list")]

    @pytest.mark.parametrize("listparts", [None, "", [], "[]"])
    def test_a_list_may_be_empty(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.answers.append(ok(session="s1", listparts=listparts))
        assert driver.list_slices("k", None, Free()) == Listing(handle=HANDLE, held=[])

    @pytest.mark.parametrize(
        "listparts", ["x", 7, [7], [{"offset": 0}], [{"offset": "x", "datalen": 1}], {"a": 1}, [None]]
    )
    def test_a_list_that_cannot_be_read_is_no_list(self, store: Store, driver: CosJsonStore, listparts: object) -> None:
        store.answers.append(ok(session="s1", listparts=listparts))
        with pytest.raises(Transient) as caught:
            driver.list_slices("k", None, Free())
        assert caught.value.code == "bad_answer"

    @pytest.mark.parametrize(
        ("known", "listed", "expected"),
        [
            ({"session": "s1", "sha": SHA}, {}, {"session": "s1", "sha": SHA}),
            ({"session": "s1"}, {"sha": SHA}, {"session": "s1"}),
            ({"sha": SHA}, {}, {"session": "s1", "sha": SHA}),
            ({"sha": SHA}, {"sha": "b" * 40}, {"session": "s1", "sha": "b" * 40}),
            ({"session": "other", "sha": SHA}, {}, {"session": "s1"}),
            (None, {}, {"session": "s1"}),
        ],
        ids=["ours", "ours-without-sha", "same-content", "other-content", "another-session", "nothing-known"],
    )
    def test_the_handle_of_a_list_is_ours_if_the_session_is(
        self, store: Store, driver: CosJsonStore, known: Any, listed: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        store.answers.append(ok(session="s1", **listed))
        found = driver.list_slices("k", known, Free())
        assert isinstance(found, Listing)
        assert found.handle == expected

    def test_finish_repeats_size_and_sha(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(access_url="http://a.test/k"))
        done = driver.finish("k", {"session": "s1", "sha": SHA}, 7, Free())
        assert done == Stored(details={"access_url": "http://a.test/k"})
        expected = [("op", b"upload_slice_finish"), ("session", b"s1"), ("filesize", b"7"), ("sha", SHA.encode())]
        assert store.sent[0].fields == expected

    @pytest.mark.parametrize("body", [b"", b"content"])
    def test_a_small_file_goes_with_its_sha(self, store: Store, driver: CosJsonStore, body: bytes) -> None:
        store.answers.append(ok(access_url="http://a.test/k"))
        sha = hashlib.sha1(body).hexdigest()  # noqa: S324 - the protocol's
        done = driver.put_whole(intent(size_bytes=len(body)), memoryview(body), Free())
        assert (done.size_bytes, done.digest) == (len(body), sha)
        assert [name for name, _ in store.sent[0].fields] == ["op", "sha", "biz_attr", "insertOnly", "filecontent"]
        assert dict(store.sent[0].fields)["sha"] == sha.encode()
        assert dict(store.sent[0].fields)["filecontent"] == body


class TestLook:
    OBJECT: ClassVar = {
        "filesize": 7,
        "filelen": "7",
        "sha": "0" * 32,
        "biz_attr": "x",
        "access_url": "http://a.test/k?sign=1",
    }

    def test_an_object_is_described(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.extend([ok(**self.OBJECT, ctime=5), ok(access_url="http://a.test/k")])
        found = driver.look("k", Free())
        assert found == Stored(7, None, None, {"access_url": "http://a.test/k", "ctime": "5"})
        assert (store.sent[0].method, store.sent[0].path) == ("GET", "/files/v2/10055004/accesslog/k?op=stat")

    @pytest.mark.parametrize("biz_attr", [f"{MARK} theirs", "sliceway/x", f"not{MARK}", "", None, 7, f"{MARK}x"])
    def test_a_mark_counts_at_the_end_only(self, store: Store, driver: CosJsonStore, biz_attr: object) -> None:
        store.answers.extend([ok(**{**self.OBJECT, "biz_attr": biz_attr}), no(-197, 404)])
        found = driver.look("k", Free())
        assert found is not None
        assert found.mark is None

    def test_what_has_not_all_its_bytes_is_no_object(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(**{**self.OBJECT, "filelen": 6}))
        assert driver.look("k", Free()) is None

    @pytest.mark.parametrize("data", [{}, {"filesize": 7}, {"filelen": 7}, {"filesize": "x", "filelen": 7}])
    def test_without_both_sizes_nothing_is_known(
        self, store: Store, driver: CosJsonStore, data: dict[str, Any]
    ) -> None:
        store.answers.append(ok(**data))
        with pytest.raises(Transient):
            driver.look("k", Free())

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
        store.answers.extend([ok(**self.OBJECT), ok(**listed)])
        assert (driver.look("k", Free()) is not None) == there


class TestAbort:
    LISTED = ok(session="s1", filesize=7)
    NOTHING = no(-197, 404)

    @pytest.mark.parametrize("handle", [HANDLE, None], ids=["ours", "any"])
    @pytest.mark.parametrize("deleted", [ok(), no(-197, 404)], ids=["deleted", "gone"])
    def test_deletes_when_nothing_else_is_there(
        self, store: Store, driver: CosJsonStore, handle: Any, deleted: httpx.Response
    ) -> None:
        store.answers.extend([self.LISTED, self.NOTHING, deleted])
        assert driver.abort("a b", handle, Free()) == Aborted()
        listed, looked, sent = store.sent
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
        store.answers.extend(answers)
        left = driver.abort("k", handle, Free())
        assert isinstance(left, LeftOpen)
        assert left.reason
        assert "delete" not in [dict(sent.fields).get("op", b"").decode() for sent in store.sent]

    def test_nothing_there_is_aborted(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(self.NOTHING)
        assert driver.abort("k", HANDLE, Free()) == Aborted()
        assert len(store.sent) == 1

    @pytest.mark.parametrize("at", [0, 1])
    def test_without_a_clear_answer_nothing_is_deleted(self, store: Store, driver: CosJsonStore, at: int) -> None:
        store.answers.extend([self.LISTED, self.NOTHING])
        store.answers[at] = httpx.ReadTimeout("slow")
        with pytest.raises(Transient):
            driver.abort("k", HANDLE, Free())
        assert len(store.sent) == at + 1


class TestSigning:
    def test_each_request_is_signed_afresh_and_for_its_file(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(access_url="http://a.test/k"))
        for _ in range(2):
            driver.finish("a b", HANDLE, 7, Free())
        one, other = (sent.plain for sent in store.sent)
        assert (one["a"], one["k"], one["b"]) == ("10055004", SECRET_ID, "accesslog")
        assert one["f"] == "/10055004/accesslog/a%20b"
        assert one["r"] != other["r"]
        assert abs(int(one["t"]) - time.time()) < 60

    @pytest.mark.parametrize("code", [-59, -96])
    def test_a_wrong_clock_is_corrected_by_the_stores_date_and_the_body_sent_again(
        self, store: Store, driver: CosJsonStore, code: int
    ) -> None:
        ahead = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        store.answers.extend([no(code, 403, Date=ahead), ok(session="s1", offset=0)])
        assert driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), Free()) == Put()
        first, second = store.sent
        assert first.fields == second.fields
        assert abs(int(second.plain["t"]) - int(first.plain["t"]) - 7200) < 60
        driver.put_slice("k", HANDLE, 0, memoryview(b"abc"), Free())
        assert abs(int(store.sent[2].plain["t"]) - int(second.plain["t"])) < 60

    def test_but_once_only(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(no(-59, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable) as caught:
            driver.look("k", Free())
        assert "clock" in caught.value.advice
        assert len(store.sent) == 2

    @pytest.mark.parametrize(
        "date", [None, "nonsense", "Thu, 01 Jan 2099 00:00:00 GMT"], ids=["none", "nonsense", "absurd"]
    )
    def test_without_a_believable_date_there_is_nothing_to_correct(
        self, store: Store, driver: CosJsonStore, date: str | None
    ) -> None:
        store.answers.append(no(-59, 403, **({"Date": date} if date else {})))
        with pytest.raises(StoreUnusable):
            driver.look("k", Free())
        assert len(store.sent) == 1

    def test_a_used_token_is_replaced_once(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.extend([ok(session="s1"), no(-197, 404), no(-77, 403), ok()])
        assert driver.abort("k", HANDLE, Free()) == Aborted()
        assert store.sent[2].plain["r"] != store.sent[3].plain["r"]

    def test_a_wrong_signature_is_not_tried_again(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(no(-97, 403, Date=formatdate(usegmt=True)))
        with pytest.raises(StoreUnusable):
            driver.look("k", Free())
        assert len(store.sent) == 1

    def test_secrets_are_in_no_text(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(no(-48, 403))
        with pytest.raises(StoreUnusable) as caught:
            driver.look("k", Free())
        shown = f"{caught.value!r} {caught.value.answer} {caught.value.advice} {driver!r} {vars(driver)!r}"
        assert SECRET_KEY not in shown
        assert SECRET_ID not in shown


class TestGuard:
    def test_it_is_asked_before_each_piece_and_its_own_error_comes_out(
        self, store: Store, driver: CosJsonStore
    ) -> None:
        store.answers.append(ok(session="s1", offset=0))
        body = memoryview(bytes(MIB))
        free = Free()
        driver.put_slice("k", HANDLE, 0, body, free)
        assert free.asked >= 6
        for stop_at in range(1, 7):
            with pytest.raises(Interrupted) as caught:
                driver.put_slice("k", HANDLE, 0, body, Free(stop_at=stop_at))
            assert caught.value.stop is Stop.CANCELLED

    def test_nothing_is_sent_when_it_says_no_at_once(self, store: Store, driver: CosJsonStore) -> None:
        with pytest.raises(Interrupted):
            driver.look("k", Free(stop_at=1))
        assert store.sent == []

    def test_no_phase_may_take_longer_than_what_is_left(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(ok(access_url="http://a.test/k"))
        driver.finish("k", HANDLE, 7, Free(left_s=1000))
        driver.finish("k", HANDLE, 7, Free(left_s=1.5))
        driver.finish("k", HANDLE, 7, Free(left_s=0))
        driver.list_slices("k", None, Free(left_s=1000))
        assert [sent.timeouts for sent in store.sent] == [
            {"connect": 5, "read": 120, "write": 10, "pool": 5},
            dict.fromkeys(("connect", "read", "write", "pool"), 1.5),
            dict.fromkeys(("connect", "read", "write", "pool"), 0.1),
            {"connect": 5, "read": 30, "write": 10, "pool": 5},
        ]

    def test_the_answer_gets_what_the_body_left_over(self, store: Store, driver: CosJsonStore) -> None:
        class Draining(Free):
            def check(self) -> None:
                self.left_s /= 2

        store.answers.append(ok(session="s1", offset=0))
        driver.put_slice("k", HANDLE, 0, memoryview(bytes(MIB)), Draining(left_s=64))
        assert store.sent[0].timeouts["read"] < 1


class TestAnswers:
    def test_a_redirect_is_not_followed(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.append(httpx.Response(302, headers={"Location": "http://elsewhere.test/"}))
        with pytest.raises(StoreUnusable):
            driver.look("k", Free())
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

        store.answers.append(httpx.Response(200, content=endless()))
        with pytest.raises(expected, match="longer than"):
            driver.finish("k", HANDLE, 7, Free()) if op == "finish" else driver.look("k", Free())
        assert len(read) == 17

    def test_a_list_of_many_slices_is_read_whole(self, store: Store, driver: CosJsonStore) -> None:
        parts = [{"offset": number * 3 * MIB, "datalen": 3 * MIB} for number in range(40_000)]
        store.answers.append(ok(session="s1", listparts=parts))
        found = driver.list_slices("k", None, Free())
        assert isinstance(found, Listing)
        assert len(found.held) == 40_000

    def test_check_wants_the_protocol_to_say_that_nothing_is_there(self, store: Store, driver: CosJsonStore) -> None:
        store.answers.extend([no(-197, 404), ok(filesize=1, filelen=1)])
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
        store.answers.append(no(-197, 404))
        assert driver.look("k", Free()) is None
        with pytest.raises(SessionGone):
            driver.list_slices("k", None, Free())


def test_the_environment_chooses_no_proxy(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """A proxy from the environment would see our tokens; with one, httpx would not use the given transport."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    driver = driver_of(store)
    store.answers.append(no(-197, 404))
    assert driver.look("k", Free()) is None
    driver.close()
