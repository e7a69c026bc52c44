"""The COS JSON driver with the emulator: its own features, and every code with every operation."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.emulator.control import Control
from worker.errors import Permanent, SessionGone, StoreError, StoreUnusable, Transient
from worker.stores.base import AbortSkipped, Digests, Intent, Listing, Session, Stored, UploadInProgress
from worker.stores.cos_json.driver import CosJsonStore
from worker.urls import ProxyUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.config.profiles import StoreProfile
    from worker.emulator.server import Emulator
    from worker.http.deadline import Guard

MIB = 1024 * 1024
TABLE = Path(__file__).parents[2] / "unit/worker/stores/cos_json/codes.csv"
MARK = "sliceway/0190a-b/3"


class PassingGuard:
    """A guard that never stops a request."""

    def check(self) -> None:
        pass

    def remaining_s(self) -> float:
        return 20.0

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""


GUARD: Guard = PassingGuard()
DATA = b"".join(bytes([number]) * MIB for number in range(3)) + b"the end"


@pytest.fixture
def control(emulator: Emulator) -> Control:
    return Control(emulator.control_url, emulator.token_file)


@pytest.fixture
def driver(store_profile: StoreProfile) -> Iterator[CosJsonStore]:
    driver = CosJsonStore(store_profile)
    yield driver
    driver.close()


def intent(key: str, *, data: bytes = DATA, overwrite: bool = False) -> Intent:
    return Intent(key=key, size_bytes=len(data), overwrite=overwrite, attributes=None, mark=MARK)


def digests_of(driver: CosJsonStore, data: bytes) -> Digests:
    digester = driver.digester()
    assert digester is not None
    digester.update(memoryview(data))
    return digester.digests()


def send(driver: CosJsonStore, key: str, begun: Session, data: bytes, *offsets: int) -> None:
    for offset in offsets or range(0, len(data), begun.slice_bytes):
        driver.put_slice(key, begun.handle, offset, memoryview(data)[offset : offset + begun.slice_bytes], GUARD)


def _send_and_finish(driver: CosJsonStore, key: str, begun: Session) -> Stored:
    """Send all slices and finish: a store may find damage in either."""
    send(driver, key, begun, DATA)
    return driver.finish(key, begun.handle, len(DATA), GUARD)


class TestWithDigests:
    def test_the_states_are_accepted_and_the_sha_is_kept(self, driver: CosJsonStore) -> None:
        digests = digests_of(driver, DATA)
        begun = driver.init(intent("k"), 3 * MIB, digests, GUARD)
        assert isinstance(begun, Session)
        assert begun.slice_bytes == MIB
        send(driver, "k", begun, DATA)
        driver.finish("k", begun.handle, len(DATA), GUARD)
        stored = driver.head("k", GUARD)
        assert stored is not None
        assert (stored.size_bytes, stored.digest, stored.mark) == (len(DATA), digests.value, MARK)

    def test_content_that_the_store_has_is_not_sent(self, driver: CosJsonStore, control: Control) -> None:
        driver.put_whole(intent("first"), memoryview(DATA), GUARD)
        found = driver.init(intent("second"), MIB, digests_of(driver, DATA), GUARD)
        assert isinstance(found, Stored)
        assert control.requests(op="data") == []
        stored = driver.head("second", GUARD)
        assert stored is not None
        assert stored.digest == digests_of(driver, DATA).value

    def test_another_job_continues_the_upload_of_the_same_content(self, driver: CosJsonStore) -> None:
        digests = digests_of(driver, DATA)
        first = driver.init(intent("k"), MIB, digests, GUARD)
        assert isinstance(first, Session)
        send(driver, "k", first, DATA, 0, 2 * MIB)
        begun = driver.init(intent("k"), MIB, digests, GUARD)
        assert begun == UploadInProgress()
        listing = driver.list_slices("k", None, GUARD)
        assert isinstance(listing, Listing)
        assert (listing.handle, listing.digest) == (first.handle, digests.value)
        assert listing.slice_bytes == MIB
        send(driver, "k", Session(listing.handle, MIB), DATA, MIB, 3 * MIB)
        driver.finish("k", listing.handle, len(DATA), GUARD)
        stored = driver.head("k", GUARD)
        assert stored is not None
        assert stored.digest == digests.value

    def test_other_content_is_not_taken_for_the_same(self, driver: CosJsonStore) -> None:
        driver.init(intent("k"), MIB, digests_of(driver, DATA), GUARD)
        other = DATA[::-1]
        begun = driver.init(intent("k"), MIB, digests_of(driver, other), GUARD)
        assert begun == UploadInProgress()
        listing = driver.list_slices("k", None, GUARD)
        assert isinstance(listing, Listing)
        assert listing.digest == digests_of(driver, DATA).value

    def test_an_upload_that_was_begun_without_a_digest_is_of_unknown_content(self, driver: CosJsonStore) -> None:
        """Also if init sends a digest: the store responds -4019 to both, and half of another file looks the same."""
        driver.init(intent("k"), MIB, None, GUARD)
        digests = digests_of(driver, DATA)
        assert driver.init(intent("k"), MIB, digests, GUARD) == UploadInProgress()
        listing = driver.list_slices("k", None, GUARD)
        assert isinstance(listing, Listing)
        assert (listing.digest, "sha" in listing.handle) == (None, False)

    def test_a_store_may_name_no_sha(self, driver: CosJsonStore, control: Control) -> None:
        control.change(sha_in_list=False, sha_in_stat=False)
        begun = driver.init(intent("k"), MIB, digests_of(driver, DATA), GUARD)
        assert isinstance(begun, Session)
        listing = driver.list_slices("k", begun.handle, GUARD)
        assert isinstance(listing, Listing)
        assert (listing.handle, listing.digest) == (
            begun.handle,
            None,
        )  # later requests repeat the sha of init
        send(driver, "k", begun, DATA)
        driver.finish("k", begun.handle, len(DATA), GUARD)
        stored = driver.head("k", GUARD)
        assert stored is not None
        assert stored.digest is None

    def test_bytes_that_do_not_match_the_digest_are_detected(self, driver: CosJsonStore, control: Control) -> None:
        begun = driver.init(intent("k"), MIB, digests_of(driver, DATA), GUARD)
        assert isinstance(begun, Session)
        control.add_rule("corrupt", op="data", nth=2)
        with pytest.raises(SessionGone) as caught:
            _send_and_finish(driver, "k", begun)
        assert caught.value.code == "digest_mismatch"
        assert driver.head("k", GUARD) is None

    def test_a_small_file_that_was_damaged_on_the_way_is_sent_again(
        self, driver: CosJsonStore, control: Control
    ) -> None:
        control.add_rule("corrupt", op="upload", count=1)
        with pytest.raises(Transient) as caught:
            driver.put_whole(intent("k", data=b"abc"), memoryview(b"abc"), GUARD)
        assert (caught.value.code, caught.value.counts_as_attempt) == ("digest_mismatch", True)
        driver.put_whole(intent("k", data=b"abc"), memoryview(b"abc"), GUARD)


@pytest.mark.parametrize("fault", ["wrong_session", "wrong_offset"])
def test_an_acknowledgement_of_another_slice_is_an_error(driver: CosJsonStore, control: Control, fault: str) -> None:
    begun = driver.init(intent("k"), MIB, None, GUARD)
    assert isinstance(begun, Session)
    control.add_rule(fault, op="data")
    with pytest.raises(Transient) as caught:
        send(driver, "k", begun, DATA, 0)
    assert (caught.value.code, caught.value.counts_as_attempt) == ("wrong_echo", True)


class TestClock:
    @pytest.mark.parametrize("skew_s", [-7200, 7200])
    def test_a_wrong_clock_is_corrected_with_one_request_more(
        self, driver: CosJsonStore, control: Control, skew_s: float
    ) -> None:
        control.change(clock_offset_s=skew_s)
        begun = driver.init(intent("k"), MIB, None, GUARD)
        assert isinstance(begun, Session)
        send(driver, "k", begun, DATA)
        driver.finish("k", begun.handle, len(DATA), GUARD)
        assert [each["code"] for each in control.requests()].count(-59) <= 1
        assert driver.abort("k", begun.handle, GUARD) is not None

    def test_a_body_is_signed_and_sent_again(self, driver: CosJsonStore, control: Control) -> None:
        begun = driver.init(intent("k"), MIB, None, GUARD)
        assert isinstance(begun, Session)
        control.change(clock_offset_s=7200)
        send(driver, "k", begun, DATA, 0)
        assert [each["code"] for each in control.requests(op="data")] == [-59, 0]
        send(driver, "k", begun, DATA, MIB)
        assert [each["code"] for each in control.requests(op="data")] == [-59, 0, 0]

    def test_a_clock_that_cannot_be_corrected_makes_the_store_unusable(
        self, driver: CosJsonStore, control: Control
    ) -> None:
        control.add_rule("error", status=403, code=-59)
        with pytest.raises(StoreUnusable):
            driver.init(intent("k"), MIB, None, GUARD)
        assert [each["code"] for each in control.requests()] == [-59, -59]


def test_a_missing_folder_is_final_where_the_store_does_not_make_it(driver: CosJsonStore, control: Control) -> None:
    control.change(create_parents=False)
    with pytest.raises(Permanent):
        driver.init(intent("no/such/folder"), MIB, None, GUARD)


def test_the_boundary_is_unquoted_as_the_server_requires(driver: CosJsonStore, control: Control) -> None:
    driver.put_whole(intent("k", data=b"abc"), memoryview(b"abc"), GUARD)
    assert [each["code"] for each in control.requests()] == [0]


def test_the_environment_chooses_no_proxy(store_profile: StoreProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would see our tokens. Nothing listens at this one, so a request through it fails."""
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    driver = CosJsonStore(store_profile)
    driver.check()
    driver.close()
    proxied = CosJsonStore(store_profile.model_copy(update={"proxy": ProxyUrl.of("http://127.0.0.1:1")}))
    with pytest.raises(Transient):
        proxied.check()
    proxied.close()


class TestEveryCode:
    """The table of the unit tests, with responses of a real server."""

    @pytest.fixture
    def calls(self, driver: CosJsonStore, control: Control) -> dict[str, Callable[[], object]]:
        numbers = itertools.count()

        def begun() -> tuple[str, Session]:
            key = f"k{next(numbers)}"
            return key, Session({"session": control.plant_upload("uploads", key, filesize=3)}, MIB)

        def slice_() -> object:
            key, session = begun()
            return driver.put_slice(key, session.handle, 0, memoryview(b"abc"), GUARD)

        def finish() -> object:
            key, session = begun()
            return driver.finish(key, session.handle, 3, GUARD)

        def abort() -> object:
            key, session = begun()
            return driver.abort(key, session.handle, GUARD)

        small = intent("small", data=b"abc")
        return {
            "init": lambda: driver.init(small, MIB, None, GUARD),
            "data": slice_,
            "list": lambda: driver.list_slices("k", None, GUARD),
            "finish": finish,
            "upload": lambda: driver.put_whole(small, memoryview(b"abc"), GUARD),
            "stat": lambda: driver.head("k", GUARD),
            "delete": abort,
        }

    @pytest.mark.parametrize("op", ["init", "data", "list", "finish", "upload", "stat", "delete"])
    def test_has_its_outcome(self, calls: dict[str, Callable[[], object]], control: Control, op: str) -> None:
        wrong: list[str] = []
        rows = list(csv.DictReader(TABLE.read_text().splitlines()))
        for row in rows:
            code, status = row["code"], int(row["http"])
            answer = {"code": int(code), "message": "NO"} if code else {"body": "<html></html>"}
            control.add_rule("error" if code else "raw", op=op, status=status, **answer)
            outcome = _outcome(calls[op])
            control.clear_rules()
            if outcome != row[op]:
                wrong.append(f"{code or 'no JSON'} with HTTP {status}: {outcome}, not {row[op]}")
        assert wrong == []
        assert len(rows) > 90


def _outcome(call: Callable[[], object]) -> str:
    """Return the outcome as a cell of the table."""
    try:
        result = call()
    except StoreError as error:
        counted = "+" if isinstance(error, Transient) and error.counts_as_attempt else ""
        own = "" if error.code == type(error).code else f":{error.code}"
        return f"{type(error).__name__}{counted}{own}"
    assert result is None or isinstance(result, Stored | UploadInProgress | AbortSkipped), result
    return "None" if result is None else type(result).__name__
