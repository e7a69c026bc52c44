"""Whole files and folders: upload, stat, delete, create, list, download."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.emulator.client import MIB, outcome, sha1
from worker.emulator.cos_json.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Callable


def create(cos: Any, path: str) -> Any:
    headers = {"Authorization": cos.sign()}
    return cos.http.post(cos.url + cos.path(path), json={"op": "create", "biz_attr": ""}, headers=headers)


@pytest.mark.parametrize("size", [0, 1, 100_000, 4 * MIB, 20 * MIB])
def test_a_whole_file_comes_back_as_it_was_sent(cos: Any, size: int) -> None:
    data = os.urandom(size)
    digest = sha1(data)
    assert cos.upload("a.bin", data, sha=digest, biz_attr="mine").json()["code"] == 0
    assert cos.get("a.bin").content == data
    stat = cos.stat("a.bin").json()["data"]
    assert (stat["filesize"], stat["filelen"], stat["sha"], stat["biz_attr"]) == (size, size, digest, "mine")


@pytest.mark.parametrize("size", [20 * MIB + 1, 41 * MIB])
def test_a_file_beyond_20_mib_gets_an_error_of_the_gateway(cos: Any, size: int) -> None:
    response = cos.upload("a.bin", bytes(size))
    assert response.status_code == 413
    assert response.headers["content-type"] == "text/html"
    assert outcome(cos.stat("a.bin")) == (404, -197)


def test_upload_refuses_a_wrong_digest_and_an_existing_file(cos: Any) -> None:
    assert outcome(cos.upload("a.bin", b"data", sha="0" * 40)) == (409, -4016)
    assert outcome(cos.post("a.bin", "upload")) == (400, -5990)
    cos.upload("a.bin", b"data")
    assert outcome(cos.upload("a.bin", b"other")) == (409, -177)
    assert cos.upload("a.bin", b"other", insertOnly=0).json()["code"] == 0
    assert cos.get("a.bin").content == b"other"


def test_a_missing_object_or_folder_is_not_found(cos: Any) -> None:
    assert outcome(cos.stat("a.bin")) == (404, -197)
    assert outcome(cos.delete("a.bin")) == (404, -197)
    assert outcome(cos.get("a.bin")) == (404, -197)
    assert outcome(cos.stat("folder/")) == (404, -197)
    assert outcome(cos.delete("folder/")) == (404, -197)


def test_content_without_an_object_is_removed(cos: Any, tmp_path: Any) -> None:
    cos.upload("a.bin", b"data")
    cos.upload("a.bin", b"other", insertOnly=0)
    cos.begin("b.bin", MIB)
    cos.delete("a.bin")
    cos.delete("b.bin")
    assert outcome(cos.upload("c.bin", b"data", sha="0" * 40)) == (409, -4016)
    assert list((tmp_path / "data" / "content").iterdir()) == []


def test_folders_are_made_and_emptied(cos: Any) -> None:
    assert create(cos, "a/").json()["data"]["ctime"] > 0
    assert outcome(create(cos, "a/")) == (409, -178)
    assert outcome(create(cos, "b")) == (400, -161)
    assert cos.stat("a/").json()["code"] == 0
    cos.upload("a/b/c.bin", b"data")
    assert outcome(cos.delete("a/")) == (409, -173)
    assert outcome(cos.delete("")) == (400, -180)
    cos.delete("a/b/c.bin")
    assert cos.delete("a/").json()["code"] == 0
    assert outcome(cos.stat("a/")) == (404, -197)


def test_an_implied_folder_exists_for_its_list_only(cos: Any) -> None:
    cos.upload("a/b/c.bin", b"data")
    assert [info["name"] for info in cos.get("a/", op="list", num=9).json()["data"]["infos"]] == ["b/"]
    assert [outcome(cos.stat(path)) for path in ("a/", "a/b/")] == [(404, -197)] * 2
    assert outcome(cos.delete("a/b/")) == (409, -173)
    assert outcome(cos.upload("a/b", b"data")) == (409, -178)
    cos.delete("a/b/c.bin")
    assert outcome(cos.delete("a/b/")) == (404, -197)
    assert outcome(cos.get("a/", op="list", num=9)) == (404, -197)
    assert cos.upload("a/b", b"data").json()["code"] == 0


def test_a_folder_can_be_made_around_what_is_in_it(cos: Any) -> None:
    cos.upload("a/c.bin", b"data")
    assert create(cos, "a/").json()["code"] == 0
    assert cos.stat("a/").json()["code"] == 0
    cos.delete("a/c.bin")
    assert cos.get("a/", op="list", num=9).json()["data"]["infos"] == []


def test_the_messages_that_clients_compare_are_the_services_own(cos: Any) -> None:
    cos.upload("a", b"data")
    create(cos, "c/")
    responses = [
        cos.upload("a", b"data"),
        cos.upload("a/b", b"data"),
        create(cos, "c/"),
        cos.stat("none"),
        cos.get("none/x"),
    ]
    assert [response.json()["message"] for response in responses] == [
        "ERROR_SAME_FILE_UPLOAD",
        "ERROR_CMD_COS_PATH_CONFLICT",
        "ERROR_CMD_COS_PATH_CONFLICT",
        "ERROR_CMD_FILE_NOTEXIST",
        "ERROR_CMD_FILE_NOTEXIST",
    ]
    cos.control.add_rule("error", op="stat", status=403, code=-121, message=CODES[-121][1])
    assert cos.stat("a").json()["message"] == "ERROR_CMD_CORSRULE_NOT_MATCH"


def test_an_operation_that_does_not_exist_has_a_code(cos: Any) -> None:
    assert outcome(cos.post("a", "upload_slice_abort")) == (400, -5964)
    assert outcome(cos.get("a", op="download")) == (400, -5964)
    assert outcome(cos.post("a", "")) == (400, -5980)


def test_an_object_replaces_another_only_with_insert_only_0(cos: Any) -> None:
    cos.upload("a", b"data")
    assert outcome(cos.upload("a", b"other", insertOnly=2)) == (400, -5999)
    assert cos.get("a").content == b"data"


def test_a_folder_with_an_unfinished_upload_is_not_empty(cos: Any) -> None:
    cos.begin("a/b.bin", MIB)
    assert outcome(cos.delete("a/")) == (409, -173)


def test_a_name_is_a_file_s_or_a_folder_s(cos: Any) -> None:
    cos.upload("a", b"data")
    assert outcome(create(cos, "a/")) == (409, -178)
    assert outcome(cos.upload("a/b", b"data")) == (409, -178)
    create(cos, "c/")
    assert outcome(cos.upload("c", b"data")) == (409, -178)
    assert outcome(cos.upload("c/", b"data")) == (400, -160)
    assert outcome(cos.init("c/", MIB)) == (400, -160)


def test_parents_can_be_required(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(create_parents=False)
    assert outcome(cos.init("a/b.bin", MIB)) == (404, -197)
    assert outcome(cos.upload("a/b.bin", b"data")) == (404, -197)
    create(cos, "a/")
    cos.begin("a/b.bin", MIB)


def test_a_folder_is_listed_page_by_page(cos: Any) -> None:
    for path in ("top.bin", "a/1.bin", "a/2.bin", "a/b/3.bin", "a/c/", "ab/4.bin"):
        create(cos, path) if path.endswith("/") else cos.upload(path, b"data")
    names, context, over = [], "", False
    while not over:
        page = cos.get("a/", op="list", num=3, context=context).json()["data"]
        names.append([info["name"] for info in page["infos"]])
        context, over = page["context"], page["listover"]
    assert names == [["1.bin", "2.bin", "b/"], ["c/"]]
    (info,) = cos.get("a/2", op="list", num=10, context="").json()["data"]["infos"]
    assert (info["name"], info["filesize"]) == ("2.bin", 4)
    assert "filesize" not in cos.get("a/b", op="list", num=1).json()["data"]["infos"][0]
    top = cos.get("", op="list", num=1000).json()["data"]["infos"]
    assert [info["name"] for info in top] == ["a/", "ab/", "top.bin"]


def test_a_list_refuses_invalid_parameters(cos: Any) -> None:
    assert outcome(cos.get("none/", op="list", num=1)) == (404, -197)
    for num in (0, 1001, ""):
        assert outcome(cos.get("", op="list", num=num)) == (400, -165)
    assert outcome(cos.get("", op="list", num=1, context="!")) == (400, -5999)


def test_a_download_can_be_a_range(cos: Any) -> None:
    data = os.urandom(1000)
    cos.upload("a.bin", data)
    for span, start, stop in (("0-99", 0, 100), ("900-", 900, 1000), ("-10", 990, 1000), ("990-2000", 990, 1000)):
        response = cos.get("a.bin", headers={"Range": f"bytes={span}"})
        assert (response.status_code, response.content) == (206, data[start:stop])
        assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/1000"
    assert cos.get("a.bin", headers={"Range": "bytes=1000-"}).status_code == 416
    for unreadable in ("lines=1-2", f"bytes=0-{'9' * 5000}"):
        assert cos.get("a.bin", headers={"Range": unreadable}).content == data


def test_head_has_the_size_without_the_bytes(cos: Any) -> None:
    cos.upload("a.bin", b"data")
    response = cos.http.head(cos.url + cos.path("a.bin"))
    assert (response.status_code, response.headers["content-length"]) == (200, "4")
    assert cos.http.head(cos.url + cos.path("none")).status_code == 404
    assert cos.get("a.bin").content == b"data", "the connection is still in step"
