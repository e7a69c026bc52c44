"""How the pieces of a body are gathered for the socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx
import pytest

from worker.http.connection import BATCH_MOST_BYTES, Connection
from worker.http.transport import _send

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
PIECE = 256 * KIB


class Taker:
    """A connection that keeps each send."""

    def __init__(self, batch_bytes: int) -> None:
        self.batch_bytes = batch_bytes
        self.sends: list[bytes] = []

    def send(self, *pieces: bytes) -> None:
        self.sends.append(b"".join(pieces))


class Body(httpx.SyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces


def sends(batch_bytes: int, *pieces: bytes) -> list[int]:
    """Send the pieces after a head of four bytes; return how many bytes went at a time."""
    taker, request = Taker(batch_bytes), httpx.Request("POST", "http://a.test/", stream=Body(*pieces))
    assert _send(cast("Connection", taker), b"HEAD", request, sum(map(len, pieces)))
    assert b"".join(taker.sends) == b"HEAD" + b"".join(pieces)
    return [len(sent) for sent in taker.sends if sent]


@pytest.mark.parametrize("batch_bytes", [0, BATCH_MOST_BYTES])
def test_a_small_body_goes_in_one_send(batch_bytes: int) -> None:
    assert sends(batch_bytes) == [4]
    assert sends(batch_bytes, b"form", b"small", b"end") == [16]
    assert sends(batch_bytes, b"form", bytes(64 * KIB), b"end") == [64 * KIB + 11]


def test_where_nothing_is_known_of_the_speed_each_piece_goes_by_itself() -> None:
    last = 4 + PIECE
    assert sends(0, b"form", *[bytes(PIECE)] * 4, b"ends") == [4 + last, PIECE, PIECE, last]


def test_where_it_goes_fast_several_go_at_once_but_never_all_of_a_large_body() -> None:
    assert sends(BATCH_MOST_BYTES, *[bytes(PIECE)] * 12, b"end") == [4 + 2 * PIECE, *[2 * PIECE] * 4, 2 * PIECE + 3]
    assert sends(BATCH_MOST_BYTES, *[bytes(PIECE)] * 4, b"end") == [4 + 2 * PIECE, 2 * PIECE + 3]
    assert sends(BATCH_MOST_BYTES, *[bytes(PIECE)] * 2, b"end") == [4 + PIECE, PIECE + 3]


def test_a_body_that_is_longer_than_it_says_keeps_its_order() -> None:
    taker, request = Taker(0), httpx.Request("POST", "http://a.test/", stream=Body(b"1" * PIECE, b"2" * PIECE, b"3"))
    _send(cast("Connection", taker), b"HEAD", request, PIECE + 1)
    assert b"".join(taker.sends) == b"HEAD" + b"1" * PIECE + b"2" * PIECE + b"3"
