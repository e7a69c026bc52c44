"""What `head` returns if the key changes between its two requests, stat and list."""

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


class PassingGuard:
    """A guard that never stops a request."""

    def check(self) -> None:
        """Return."""

    def remaining_s(self) -> float:
        return 30.0

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""


def driver_of(responses: Iterator[tuple[int, int, object]]) -> CosJsonStore:
    def respond(request: httpx.Request) -> httpx.Response:
        request.read()
        status, code, data = next(responses)
        return httpx.Response(status, content=json.dumps({"code": code, "message": "m", "data": data}))

    profile = StoreProfile(
        name="main", protocol="cos-json", endpoint="http://127.0.0.1:1", appid="1", bucket="b",
        secret_id=SecretStr("fake-secret-id"), secret_key=SecretStr("fake-secret-key"),
    )  # fmt: skip
    return CosJsonStore(profile, httpx.MockTransport(respond))


def test_an_upload_that_disappears_between_stat_and_list_is_no_object() -> None:
    """Stat also describes an upload that has all slices. If the list then finds no upload, it is gone, not finished."""
    driver = driver_of(iter([(200, 0, FULL), (404, -197, None), (404, -197, None)]))
    assert driver.head("key", PassingGuard()) is None
    driver.close()


def test_an_object_without_a_list_is_an_object() -> None:
    driver = driver_of(iter([(200, 0, FULL), (404, -197, None), (200, 0, FULL)]))
    found = driver.head("key", PassingGuard())
    assert found is not None
    assert found.mark == "sliceway/j/1"
    driver.close()


def test_an_expected_object_costs_two_requests() -> None:
    driver = driver_of(iter([(404, -197, None), (200, 0, FULL)]))
    found = driver.head("key", PassingGuard(), expected=True)
    assert found is not None
    assert found.mark == "sliceway/j/1"
    driver.close()


def test_slices_that_arrive_between_the_requests_do_not_make_an_upload_an_object() -> None:
    """The first list has half of the slices, then stat has all. The second list shows that the upload is unfinished."""
    half = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 4}]}
    whole = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 8}]}
    driver = driver_of(iter([(200, 0, half), (200, 0, FULL), (200, 0, whole)]))
    assert driver.head("key", PassingGuard(), expected=True) is None
    driver.close()


def test_an_object_with_the_finished_mark_needs_no_list() -> None:
    driver = driver_of(iter([(200, 0, FULL)]))
    found = driver.head("key", PassingGuard(), finished_mark="sliceway/j/1")
    assert found is not None
    assert found.mark == "sliceway/j/1"
    driver.close()


def test_an_object_with_another_mark_needs_a_list() -> None:
    listed = {"session": "s", "filesize": 8, "listparts": [{"offset": 0, "datalen": 8}]}
    driver = driver_of(iter([(200, 0, FULL), (200, 0, listed)]))
    assert driver.head("key", PassingGuard(), finished_mark="sliceway/other/1") is None
    driver.close()
