"""What a look makes of answers that are out of date: stat and list are two requests, and the key changes in between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from worker.config.profiles import StoreProfile
from worker.stores.cos_json.driver import CosJsonStore

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = {"filesize": 8, "filelen": 8, "biz_attr": "sliceway/j/1"}


class Always:
    """A guard that never says no."""

    def check(self) -> None:
        """Go on."""

    def remaining_s(self) -> float:
        return 30.0

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore how far the request is."""


def store_that_answers(answers: Iterator[tuple[int, int, object]]) -> CosJsonStore:
    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        status, code, data = next(answers)
        return httpx.Response(status, content=json.dumps({"code": code, "message": "m", "data": data}))

    profile = StoreProfile(
        name="main", protocol="cos-json", endpoint="http://127.0.0.1:1", appid="1", bucket="b",
        secret_id=SecretStr("fake-secret-id"), secret_key=SecretStr("fake-secret-key"),
    )  # fmt: skip
    return CosJsonStore(profile, httpx.MockTransport(answer))


def test_an_upload_that_goes_between_stat_and_list_is_no_object() -> None:
    """Stat answers for an upload of which every slice has come; when the list finds none, it has gone, not finished."""
    store = store_that_answers(iter([(200, 0, FULL), (404, -197, None), (404, -197, None)]))
    assert store.look("key", Always()) is None
    store.close()


def test_an_object_of_which_the_list_knows_nothing_is_one() -> None:
    store = store_that_answers(iter([(200, 0, FULL), (404, -197, None), (200, 0, FULL)]))
    found = store.look("key", Always())
    assert found is not None
    assert found.mark == "sliceway/j/1"
    store.close()


def test_an_object_that_is_expected_costs_two_requests() -> None:
    store = store_that_answers(iter([(404, -197, None), (200, 0, FULL)]))
    found = store.look("key", Always(), expected=True)
    assert found is not None
    assert found.mark == "sliceway/j/1"
    store.close()


def test_slices_that_come_while_an_object_is_expected_do_not_make_an_upload_one() -> None:
    """The list has half of it, then stat sees all: it is the list after that which says that nothing is finished."""
    half = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 4}]}
    whole = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 8}]}
    store = store_that_answers(iter([(200, 0, half), (200, 0, FULL), (200, 0, whole)]))
    assert store.look("key", Always(), expected=True) is None
    store.close()


def test_what_carries_the_mark_of_an_acknowledged_request_is_not_asked_about_again() -> None:
    store = store_that_answers(iter([(200, 0, FULL)]))
    found = store.look("key", Always(), finished_mark="sliceway/j/1")
    assert found is not None
    assert found.mark == "sliceway/j/1"
    store.close()


def test_but_what_carries_another_mark_is() -> None:
    listed = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 8}]}
    store = store_that_answers(iter([(200, 0, FULL), (200, 0, listed)]))
    assert store.look("key", Always(), finished_mark="sliceway/other/1") is None
    store.close()
