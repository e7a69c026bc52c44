"""Who may do what, with which token, as a server sees it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(answer: Any) -> tuple[int, int]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"k": "stranger"}, -47),
        ({"key": "fake-other-key"}, -48),
        ({"e": 1}, -59),
        ({"b": "other"}, -61),
        ({"f": "/10055004/uploads/b"}, -63),
        ({"a": "1"}, -70),
        ({"e": 0}, -74),
    ],
)
def test_a_wrong_token_is_refused_before_anything_happens(cos: Any, fields: dict[str, Any], code: int) -> None:
    assert refusal(cos.upload("a.bin", b"data", token=cos.sign(**fields))) == (403, code)
    assert refusal(cos.stat("a.bin")) == (404, -197)


def test_a_request_without_a_token_is_refused(cos: Any) -> None:
    assert refusal(cos.upload("a.bin", b"data", token="")) == (403, -81)


def test_the_token_may_travel_in_the_address(cos: Any) -> None:
    answer = cos.http.get(cos.url + cos.path("a.bin"), params={"op": "stat", "sign": cos.sign()})
    assert refusal(answer) == (404, -197)


def test_a_prefix_or_the_file_may_be_signed(cos: Any) -> None:
    for fileid in ("/10055004/uploads/", "/10055004/uploads/a%20b", "/10055004/uploads/a%20b.bin"):
        assert cos.upload("a b.bin", b"data", token=cos.sign(f=fileid), insertOnly=0).json()["code"] == 0


def test_delete_wants_a_token_for_one_use(cos: Any) -> None:
    cos.upload("a.bin", b"data")

    def delete(token: str) -> tuple[int, int]:
        headers = {"Authorization": token}
        return refusal(cos.http.post(cos.url + cos.path("a.bin"), json={"op": "delete"}, headers=headers))

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


def test_the_answer_tells_the_time_that_signatures_are_judged_by(cos: Any) -> None:
    cos.control.change(clock_offset_s=3600)
    answer = cos.stat("a.bin")
    assert refusal(answer) == (403, -59)
    ahead_s = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    assert 3590 < ahead_s < 3610
    now = int(time.time() + ahead_s)
    assert cos.upload("a.bin", b"data", token=cos.sign(t=now, e=now + 60)).json()["code"] == 0


def test_checking_can_be_switched_off(start_cos: Callable[..., Any]) -> None:
    cos = start_cos(verify_signatures=False)
    assert cos.upload("a.bin", b"data", token="").json()["code"] == 0


def test_strangers_meet_the_gateway(cos: Any) -> None:
    answer = cos.http.get(cos.url + "/files/v2/1/uploads/a.bin?op=stat")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/xml")
    assert refusal(cos.http.get(cos.url + "/files/v2/10055004/none/a.bin?op=stat")) == (404, -133)
