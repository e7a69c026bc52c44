"""The error seam, walked through a table of its own: every code, every operation.

A cell is the class of the error, with `+` if it counts as the slice's own fault, and `:code` where the code is not the
class's own; or what the call returns. What it returns is tested over the wire, with the same table.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from worker import errors
from worker.stores.cos_json.errors import CODES, Op, broken, failure
from worker.stores.cos_json.response import read_answer

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


def shown(error: StoreError) -> str:
    counted = "+" if isinstance(error, errors.Transient) and error.counts_as_attempt else ""
    own_code = type(error).code == error.code
    return f"{type(error).__name__}{counted}" + ("" if own_code else f":{error.code}")


def answered(code: str, status: str, op: str, headers: dict[str, str] | None = None) -> StoreError:
    body = f'{{"code": {code}, "message": "ERROR_X", "request_id": "NTc"}}' if code else "<html>no</html>"
    return failure(OPS[op], "a/key", read_answer(int(status), headers or {}, body.encode(), ()))


@pytest.mark.parametrize(("row", "op", "expected"), CELLS)
def test_every_answer_has_its_class(row: dict[str, str], op: str, expected: str) -> None:
    error = answered(row["code"], row["http"], op)
    assert shown(error) == expected
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
def test_a_store_that_says_when_to_come_back_is_taken_at_its_word(code: str, status: str, op: str) -> None:
    error = answered(code, status, op, {"retry-after": "7"})
    assert isinstance(error, errors.Throttled)
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 7


def test_an_unknown_bucket_or_appid_is_refused_in_xml_and_is_the_profiles_fault() -> None:
    body = b'<?xml version="1.0"?><Error><Code>InvalidRequest</Code><Message>Invalid Request</Message></Error>'
    assert isinstance(failure(Op.INIT, "k", read_answer(400, {}, body, ())), errors.StoreUnusable)
    assert isinstance(failure(Op.INIT, "k", read_answer(503, {}, body, ())), errors.Transient)


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout("t"), httpx.WriteTimeout("t"), httpx.ReadError("r"), httpx.RemoteProtocolError("cut")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("op", OPS)
def test_a_lost_answer_is_unknown_only_where_it_may_have_published(op: str, error: httpx.HTTPError) -> None:
    expected = errors.Unknown if op in {"finish", "upload"} else errors.Transient
    lost = broken(OPS[op], "k", error)
    assert (type(lost), lost.unanswered) == (expected, True)


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ConnectTimeout("t"), httpx.PoolTimeout("t"), httpx.ProxyError("p")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("op", OPS)
def test_what_was_never_sent_can_be_sent_again(op: str, error: httpx.HTTPError) -> None:
    never_sent = broken(OPS[op], "k", error)
    assert (type(never_sent), never_sent.unanswered) == (errors.Transient, False)


@pytest.mark.parametrize("op", OPS)
def test_what_was_too_slow_has_a_code_of_its_own(op: str) -> None:
    codes = [broken(OPS[op], "k", error).code for error in (httpx.WriteTimeout("t"), httpx.ReadTimeout("t"))]
    assert codes == ["store_stalled", "store_silent"]
    assert set(codes) == errors.TIMEOUT_CODES
    assert broken(OPS[op], "k", httpx.ConnectTimeout("t")).code not in errors.TIMEOUT_CODES


def test_errors_below_http_are_told_in_one_line() -> None:
    error = broken(Op.DATA, "k", httpx.ReadError("line\none\r\n" + "x" * 500))
    assert error.message.startswith("upload_slice_data of 'k': no answer from the store (ReadError: line one xxx")
    assert len(error.message) < 300
