"""Requests with a valid, an invalid, a used and no token."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.emulator.client import outcome

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"k": "unknown"}, -47),
        ({"key": "fake-other-key"}, -48),
        ({"e": 1}, -59),
        ({"b": "other"}, -61),
        ({"f": "/10055004/uploads/b"}, -63),
        ({"a": "1"}, -70),
        ({"e": 0}, -74),
    ],
)
def test_a_wrong_token_is_refused_before_anything_happens(cos: Any, fields: dict[str, Any], code: int) -> None:
    assert outcome(cos.upload("a.bin", b"data", token=cos.sign(**fields))) == (403, code)
    assert outcome(cos.stat("a.bin")) == (404, -197)


def test_a_request_without_a_token_is_refused(cos: Any) -> None:
    assert outcome(cos.upload("a.bin", b"data", token="")) == (403, -81)


def test_the_token_may_be_in_the_query(cos: Any) -> None:
    response = cos.http.get(cos.url + cos.path("a.bin"), params={"op": "stat", "sign": cos.sign()})
    assert outcome(response) == (404, -197)


def test_a_prefix_or_the_file_may_be_signed(cos: Any) -> None:
    for fileid in ("/10055004/uploads/", "/10055004/uploads/a%20b", "/10055004/uploads/a%20b.bin"):
        assert cos.upload("a b.bin", b"data", token=cos.sign(f=fileid), insertOnly=0).json()["code"] == 0


def test_delete_requires_a_one_time_token(cos: Any) -> None:
    cos.upload("a.bin", b"data")

    def delete(token: str) -> tuple[int, int]:
        headers = {"Authorization": token}
        return outcome(cos.http.post(cos.url + cos.path("a.bin"), json={"op": "delete"}, headers=headers))

    assert delete(cos.sign()) == (403, -73)
    assert delete(cos.sign("a.bin", f="")) == (403, -76)
    assert delete(cos.sign("b.bin")) == (403, -63)
    token = cos.sign("a.bin")
    assert delete(token) == (200, 0)
    cos.upload("a.bin", b"data")
    assert delete(token) == (403, -77)


def test_a_used_token_stays_used_after_a_restart(start_cos: Callable[..., Any]) -> None:
    cos = start_cos()
    token = cos.sign("a.bin")
    codes = []
    for _ in range(2):
        headers = {"Authorization": token}
        codes.append(cos.http.post(cos.url + cos.path("a.bin"), json={"op": "delete"}, headers=headers).json()["code"])
        cos = start_cos()
    assert codes == [-197, -77]


def test_the_date_of_a_response_is_the_time_for_signatures(cos: Any) -> None:
    cos.control.change(clock_offset_s=3600)
    response = cos.stat("a.bin")
    assert outcome(response) == (403, -59)
    ahead_s = parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    assert 3590 < ahead_s < 3610
    now = int(time.time() + ahead_s)
    assert cos.upload("a.bin", b"data", token=cos.sign(t=now, e=now + 60)).json()["code"] == 0


def test_checking_can_be_switched_off(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(verify_signatures=False)
    assert cos.upload("a.bin", b"data", token="").json()["code"] == 0


def test_an_unknown_account_gets_an_error_of_the_gateway(cos: Any) -> None:
    response = cos.http.get(cos.url + "/files/v2/1/uploads/a.bin?op=stat")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/xml")
    assert outcome(cos.http.get(cos.url + "/files/v2/10055004/none/a.bin?op=stat")) == (404, -133)
