"""Request paths: the escaping of every client names the same object, and illegal paths are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.emulator.config import StoreAccount
from worker.emulator.cos_json.errors import CosError, GatewayError
from worker.emulator.cos_json.targets import addresses, target_of

if TYPE_CHECKING:
    from worker.emulator.core.targets import Target

ACCOUNTS = (StoreAccount("1", ("photos",), "fake-id", "fake-key"),)


def target(raw: str) -> Target:
    return target_of("/files/v2/1/photos/" + raw, ACCOUNTS)


@pytest.mark.parametrize(
    "raw", ["a%20b/~c!.bin", "a%20b/%7Ec%21.bin", "a b/~c!.bin", "/a%20b//~c!.bin", "a%20b%2F~c!.bin"]
)
def test_all_spellings_of_a_path_are_one_path(raw: str) -> None:
    assert target(raw).path == "a b/~c!.bin"


def test_text_beyond_ascii_is_utf_8() -> None:
    assert target("%E5%9B%BE.jpg").path == "图.jpg"


@pytest.mark.parametrize("raw", ["a%3Fb", "a*b", "a%00b", "%FF", "../b", "a/./b", "x" * 851, "a%0Ab"])
def test_an_illegal_path_is_refused(raw: str) -> None:
    with pytest.raises(CosError) as refusal:
        target(raw)
    assert refusal.value.code == -180


def test_an_unknown_bucket_has_a_code() -> None:
    with pytest.raises(CosError) as refusal:
        target_of("/files/v2/1/videos/a", ACCOUNTS)
    assert (refusal.value.code, refusal.value.status) == (-133, 404)


@pytest.mark.parametrize(("path", "status"), [("/files/v2/2/photos/a", 400), ("/", 404), ("/files/v1/1/photos/a", 404)])
def test_the_gateway_refuses_without_json(path: str, status: int) -> None:
    with pytest.raises(GatewayError) as refusal:
        target_of(path, ACCOUNTS)
    assert refusal.value.status == status
    assert b"{" not in refusal.value.body


def test_a_target_has_its_parent_folders() -> None:
    assert target("a/b/c.bin").parents() == ["a/", "a/b/"]
    assert target("a/b/").parents() == ["a/"]
    assert target("c.bin").parents() == []
    assert (target("").is_folder, target("a/").is_folder, target("a").is_folder) == (True, True, False)


def test_addresses_are_escaped_and_the_resource_path_is_not() -> None:
    urls = addresses(target("a%20b.bin"), "store:80")
    assert urls["url"] == "http://store:80/files/v2/1/photos/a%20b.bin"
    assert urls["resource_path"] == "/1/photos/a b.bin"
