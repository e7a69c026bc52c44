"""Bytes on the wire: the requests of the vendor's clients, and the responses that they expect."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.integration.emulator.client import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class RawConnection:
    """A raw connection."""

    def __init__(self, cos: Any) -> None:
        self.cos = cos
        self.sock = socket.create_connection(cos.address, timeout=10)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def request(self, body: bytes, *headers: str, path: str = "a.bin", method: str = "POST") -> bytes:
        """A signed request with a Content-Length."""
        lines = [f"{method} {self.cos.path(path)} HTTP/1.1", "Host: store", f"Authorization: {self.cos.sign()}"]
        lines += [f"Content-Length: {len(body)}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def response(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self.file.read(int(headers.get("Content-Length", 0)))

    def code(self) -> int:
        return int(json.loads(self.response()[2])["code"])


FORM = "Content-Type: multipart/form-data; boundary=xyz"


def form(*parts: tuple[str, bytes]) -> bytes:
    written = [
        f"--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    ]
    return b"".join(written) + b"--xyz--\r\n"


UPLOAD = form(('name="op"', b"upload"), ('name="insertOnly"', b"0"), ('name="filecontent"', b"data"))


def test_every_response_has_the_headers_that_clients_read(cos: Any) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(UPLOAD, FORM))
        status, headers, body = wire.response()
    assert status == 200
    assert headers["Server"] == "tencent-cos"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Date"].endswith("GMT")
    assert json.loads(body)["request_id"]


def test_requests_may_be_pipelined(cos: Any) -> None:
    with RawConnection(cos) as wire:
        stat = wire.request(b"", method="GET").replace(b" HTTP", b"?op=stat HTTP", 1)
        wire.sock.sendall(wire.request(UPLOAD, FORM) * 2 + stat)
        assert [wire.code() for _ in range(3)] == [0, 0, 0]


def test_a_request_may_come_byte_by_byte(cos: Any) -> None:
    with RawConnection(cos) as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in wire.request(UPLOAD, FORM):
            wire.sock.sendall(bytes([byte]))
        assert wire.code() == 0
    assert cos.get("a.bin").content == b"data"


def test_expect_continue_is_answered_with_100(cos: Any) -> None:
    with RawConnection(cos) as wire:
        request = wire.request(UPLOAD, FORM, "Expect: 100-continue")
        wire.sock.sendall(request[: -len(UPLOAD)])
        assert wire.response()[0] == 100
        wire.sock.sendall(UPLOAD)
        assert wire.code() == 0


def test_expect_continue_with_a_large_body_is_answered_with_413(cos: Any) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(b"", FORM, "Expect: 100-continue").replace(b"Length: 0", b"Length: 99999999"))
        assert wire.response()[0] == 413


def test_connections_are_kept_or_closed_as_requested(cos: Any) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(UPLOAD, FORM, "Connection: close"))
        assert wire.response()[1]["Connection"] == "close"
        assert wire.file.read() == b""
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(UPLOAD, FORM).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.response()[1]["Connection"] == "close"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nAuthorization: none\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000, 431),
    ],
)
def test_a_malformed_request_gets_a_response_and_ends_the_connection(cos: Any, head: bytes, status: int) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(head)
        assert wire.response()[0] == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no form at all", -5993),
        (form(('name="op"', b"upload"))[:-6], -5993),
        (form(('name="op"', b"\xff")), -5993),
        (form(('name="filecontent"', b"a"), ('name="filecontent"', b"b")), -5993),
        (form(('name="op"', b"")), -5980),
        (form(('name="op"', b"explode")), -5964),
    ],
)
def test_a_malformed_form_has_a_code_and_the_connection_stays_open(cos: Any, body: bytes, code: int) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(body, FORM))
        assert wire.code() == code
        wire.sock.sendall(wire.request(UPLOAD, FORM))
        assert wire.code() == 0


@pytest.mark.parametrize(("size", "times"), [(1, 2), (512 * 1024, 3), (3 * MIB, 2)])
def test_a_form_may_come_several_times_in_one_body(cos: Any, tmp_path: Path, size: int, times: int) -> None:
    """The vendor's JavaScript SDK retries a slice like this: it appends all fields and the bytes."""
    data = os.urandom(size)
    session = cos.begin("a.bin", size, slice_size=3 * MIB)
    fields = [("op", b"upload_slice_data"), ("session", session.encode()), ("offset", b"0"), ("fileContent", data)]
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(form(*((f'name="{name}"', value) for name, value in fields * times)), FORM))
        assert wire.code() == 0
    assert cos.list("a.bin").json()["data"]["listparts"] == [{"offset": 0, "datalen": size}]
    assert cos.finish("a.bin", session, size).json()["code"] == 0
    assert cos.get("a.bin").content == data
    assert len(list((tmp_path / "data" / "content").iterdir())) == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_has_a_code(cos: Any, body: bytes) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(body, "Content-Type: application/json"))
        assert wire.code() == -5999


def test_other_methods_are_refused(cos: Any) -> None:
    with RawConnection(cos) as wire:
        wire.sock.sendall(wire.request(b"body", method="PUT"))
        assert wire.response()[0] == 405


def test_a_list_of_slices_may_be_requested_in_json_or_by_get(cos: Any) -> None:
    session = cos.begin("a.bin", MIB)
    headers = {"Authorization": cos.sign()}
    response = cos.http.post(cos.url + cos.path("a.bin"), json={"op": "upload_slice_list"}, headers=headers)
    assert response.json()["data"]["session"] == session
    assert cos.get("a.bin", op="upload_slice_list").json()["data"]["session"] == session


def test_delete_may_be_a_form(cos: Any) -> None:
    cos.upload("a.bin", b"data")
    assert cos.post("a.bin", "delete", token=cos.sign("a.bin")).json()["code"] == 0


def test_the_order_of_parts_and_the_spelling_of_names_are_free(cos: Any) -> None:
    with RawConnection(cos) as wire:
        session = cos.begin("a.bin", 600 * KIB)
        parts = [('name="fileContent"; filename="blob"', b"d" * 512 * KIB), ('name="offset"; filename="offset"', b"0")]
        parts += [('name="biz_attr"', b""), ('name="sliceSize"', b"524288"), ('name="session"', session.encode())]
        wire.sock.sendall(wire.request(form(*parts, ('name="op"', b"upload_slice_data")), FORM))
        assert wire.code() == 0
        parts = [
            ('name="filecontent"', b"d" * 88 * KIB),
            ('name="offset"', b"524288"),
            ('name="session"', session.encode()),
        ]
        wire.sock.sendall(wire.request(form(*parts, ('name="op"', b"upload_slice_data")), FORM))
        assert wire.code() == 0
        parts = [('name="fileSize"', str(600 * KIB).encode()), ('name="session"', session.encode())]
        wire.sock.sendall(wire.request(form(*parts, ('name="op"', b"upload_slice_finish")), FORM, "Method: POST"))
        assert wire.code() == 0
    assert cos.get("a.bin").content == b"d" * 600 * KIB


def test_a_quoted_boundary_is_accepted_unless_strict(start_cos: Callable[..., Any]) -> None:
    quoted = FORM.replace("xyz", '"xyz"')
    for strict, code in ((False, 0), (True, -5993)):
        with RawConnection(start_cos(strict_boundary=strict)) as wire:
            wire.sock.sendall(wire.request(UPLOAD, quoted))
            assert wire.code() == code


def test_long_uploadparts_fit(cos: Any) -> None:
    """A file of 64 GiB has a state for each of its 65,536 parts: about 5 MiB."""
    parts = [{"offset": n * MIB, "datalen": MIB, "datasha": "0" * 40} for n in range(65_536)]
    fields = {"sha": "0" * 40, "uploadparts": json.dumps(parts), "slice_size": MIB}
    assert cos.init("big.bin", 65_536 * MIB, **fields).json()["code"] == 0
