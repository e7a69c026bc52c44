"""How `_send` batches the pieces of a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx
import pytest

from worker.http.connection import MAX_BATCH_BYTES, SocketConnection
from worker.http.transport import _send

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
PIECE = 256 * KIB


class RecordingConnection:
    """A connection that records each send."""

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


def send_sizes(batch_bytes: int, *pieces: bytes) -> list[int]:
    """Send the pieces after a head of four bytes; return the size of each send."""
    connection = RecordingConnection(batch_bytes)
    request = httpx.Request("POST", "http://a.test/", stream=Body(*pieces))
    assert _send(cast("SocketConnection", connection), b"HEAD", request, sum(map(len, pieces)))
    assert b"".join(connection.sends) == b"HEAD" + b"".join(pieces)
    return [len(sent) for sent in connection.sends if sent]


@pytest.mark.parametrize("batch_bytes", [0, MAX_BATCH_BYTES])
def test_a_small_body_goes_in_one_send(batch_bytes: int) -> None:
    assert send_sizes(batch_bytes) == [4]
    assert send_sizes(batch_bytes, b"form", b"small", b"end") == [16]
    assert send_sizes(batch_bytes, b"form", bytes(64 * KIB), b"end") == [64 * KIB + 11]


def test_before_the_first_fast_send_each_piece_is_sent_alone() -> None:
    last = 4 + PIECE
    assert send_sizes(0, b"form", *[bytes(PIECE)] * 4, b"ends") == [4 + last, PIECE, PIECE, last]


def test_on_a_fast_link_several_pieces_are_sent_at_once_but_never_a_whole_large_body() -> None:
    assert send_sizes(MAX_BATCH_BYTES, *[bytes(PIECE)] * 12, b"end") == [4 + 2 * PIECE, *[2 * PIECE] * 4, 2 * PIECE + 3]
    assert send_sizes(MAX_BATCH_BYTES, *[bytes(PIECE)] * 4, b"end") == [4 + 2 * PIECE, 2 * PIECE + 3]
    assert send_sizes(MAX_BATCH_BYTES, *[bytes(PIECE)] * 2, b"end") == [4 + PIECE, PIECE + 3]


def test_a_body_longer_than_its_stated_length_keeps_its_order() -> None:
    connection = RecordingConnection(0)
    request = httpx.Request("POST", "http://a.test/", stream=Body(b"1" * PIECE, b"2" * PIECE, b"3"))
    _send(cast("SocketConnection", connection), b"HEAD", request, PIECE + 1)
    assert b"".join(connection.sends) == b"HEAD" + b"1" * PIECE + b"2" * PIECE + b"3"
