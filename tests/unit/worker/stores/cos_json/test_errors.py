"""The error of every code with every operation, compared with the table in `codes.csv`.

A cell has the class of the error, `+` if the error counts as an attempt, and `:code` if the code is not the default of
the class. Or it has the class that the call returns; an integration test checks these cells over real connections.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from worker import errors
from worker.stores.cos_json.errors import CODES, Op, failure, no_response
from worker.stores.cos_json.response import parse_response

if TYPE_CHECKING:
    from worker.errors import StoreError

OPS = {
    "init": Op.INIT,
    "data": Op.DATA,
    "list": Op.LIST,
    "finish": Op.FINISH,
    "upload": Op.UPLOAD,
    "stat": Op.STAT,
    "delete": Op.DELETE,
}
RETURNED = {"Stored", "UploadInProgress", "None", "AbortSkipped"}
ROWS = list(csv.DictReader(Path(__file__).with_name("codes.csv").read_text().splitlines()))
CELLS = [
    pytest.param(row, op, row[op], id=f"{row['code'] or 'none'}-{row['http']}-{op}")
    for row in ROWS
    for op in OPS
    if row[op] not in RETURNED
]


def cell(error: StoreError) -> str:
    counted = "+" if isinstance(error, errors.Transient) and error.counts_as_attempt else ""
    own_code = type(error).code == error.code
    return f"{type(error).__name__}{counted}" + ("" if own_code else f":{error.code}")


def error_of(code: str, status: str, op: str, headers: dict[str, str] | None = None) -> StoreError:
    body = f'{{"code": {code}, "message": "ERROR_X", "request_id": "NTc"}}' if code else "<html>no</html>"
    return failure(OPS[op], "a/key", parse_response(int(status), headers or {}, body.encode(), ()))


@pytest.mark.parametrize(("row", "op", "expected"), CELLS)
def test_every_response_has_its_error(row: dict[str, str], op: str, expected: str) -> None:
    error = error_of(row["code"], row["http"], op)
    assert cell(error) == expected
    assert "\n" not in error.message
    assert f"HTTP {row['http']}" in error.message
    assert OPS[op] in error.message
    assert "'a/key'" in error.message
    assert error.answer is not None
    if row["code"]:
        assert f"code {row['code']}" in error.message
        assert error.answer == f"HTTP {row['http']}, code {row['code']}, ERROR_X, request_id NTc"


def test_the_table_of_expectations_and_the_table_of_codes_name_the_same_codes() -> None:
    assert {int(row["code"]) for row in ROWS if row["code"] and row["code"] != "-31337"} == set(CODES)


@pytest.mark.parametrize(
    ("code", "status"), [("-71", "503"), ("-196", "503"), ("", "503"), ("", "429"), ("-195", "500")]
)
@pytest.mark.parametrize("op", OPS)
def test_a_retry_after_of_the_store_is_used(code: str, status: str, op: str) -> None:
    error = error_of(code, status, op, {"retry-after": "7"})
    assert isinstance(error, errors.Throttled)
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 7


def test_an_unknown_bucket_or_appid_is_refused_in_xml_and_is_the_profiles_fault() -> None:
    body = b'<?xml version="1.0"?><Error><Code>InvalidRequest</Code><Message>Invalid Request</Message></Error>'
    assert isinstance(failure(Op.INIT, "k", parse_response(400, {}, body, ())), errors.StoreUnusable)
    assert isinstance(failure(Op.INIT, "k", parse_response(503, {}, body, ())), errors.Transient)


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout("t"), httpx.WriteTimeout("t"), httpx.ReadError("r"), httpx.RemoteProtocolError("cut")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("op", OPS)
def test_a_lost_response_is_unknown_only_if_the_request_may_have_published(op: str, error: httpx.HTTPError) -> None:
    expected = errors.Unknown if op in {"finish", "upload"} else errors.Transient
    failed = no_response(OPS[op], "k", error)
    assert (type(failed), failed.unanswered) == (expected, True)


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ConnectTimeout("t"), httpx.PoolTimeout("t"), httpx.ProxyError("p")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("op", OPS)
def test_a_request_that_was_never_sent_can_be_repeated(op: str, error: httpx.HTTPError) -> None:
    never_sent = no_response(OPS[op], "k", error)
    assert (type(never_sent), never_sent.unanswered) == (errors.Transient, False)


@pytest.mark.parametrize("op", OPS)
def test_a_timeout_has_its_own_code(op: str) -> None:
    codes = [no_response(OPS[op], "k", error).code for error in (httpx.WriteTimeout("t"), httpx.ReadTimeout("t"))]
    assert codes == ["store_stalled", "store_silent"]
    assert set(codes) == errors.TIMEOUT_CODES
    assert no_response(OPS[op], "k", httpx.ConnectTimeout("t")).code not in errors.TIMEOUT_CODES


def test_the_message_of_a_connection_error_is_one_line() -> None:
    error = no_response(Op.DATA, "k", httpx.ReadError("line\none\r\n" + "x" * 500))
    assert error.message.startswith("upload_slice_data of 'k': no answer from the store (ReadError: line one xxx")
    assert len(error.message) < 300
