"""The parser finds the same parts, wherever the network splits the body and whichever client wrote it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.emulator.http.multipart import MultipartError, MultipartParser, PartBegins, PartBytes, boundary_of

BOUNDARY = b"----a-boundary"


def parse(body: bytes, cuts: list[int] | None = None, *, moving: bool = False) -> list[tuple[str, bytes]]:
    """The parts of a body that arrives in pieces, in one growing buffer or in a small one that is moved."""
    parser = MultipartParser(BOUNDARY)
    parts: list[tuple[str, bytes]] = []
    buffer, position = bytearray(), 0
    edges = sorted({0, len(body), *(cut for cut in cuts or [] if cut < len(body))})
    for start, end in itertools.pairwise(edges):
        if moving:
            del buffer[:position]
            position = 0
        buffer += body[start:end]
        position, events = parser.feed(buffer, position, len(buffer))
        for event in events:
            if isinstance(event, PartBegins):
                parts.append((event.name, b""))
            elif isinstance(event, PartBytes):
                parts[-1] = parts[-1][0], parts[-1][1] + buffer[event.start : event.end]
    assert parser.complete
    return parts


def body_of(*parts: tuple[str, bytes]) -> bytes:
    """A body of parts given as their header lines and bytes."""
    written = [b"--" + BOUNDARY + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts]
    return b"".join(written) + b"--" + BOUNDARY + b"--\r\n"


#: The header lines of one field as the vendor's clients and pages write them.
SCALAR = {
    "php, js, node and the pages": 'Content-Disposition: form-data; name="op"',
    "java": 'Content-Disposition: form-data; name="op"\r\nContent-Type: text/plain; charset=UTF-8\r\n'
    "Content-Transfer-Encoding: 8bit",
    "the newer page": 'Content-Disposition: form-data; name="op"\r\nContent-Length: 17',
    "py": 'Content-Disposition: form-data; name="op"; filename="op"',
    "any case, no quotes": "content-disposition:form-data;name=op",
}
FILE = {
    "php": 'Content-Disposition: form-data; name="filecontent"',
    "py": 'Content-Disposition: form-data; name="filecontent"; filename="filecontent"',
    "node": 'Content-Disposition: form-data; name="filecontent"; filename="/tmp/a;b=c.bin"\r\n'
    "Content-Type: application/octet-stream",
    "js": 'Content-Disposition: form-data; name="fileContent"; filename="blob"\r\n'
    "Content-Type: application/octet-stream",
    "java": 'Content-Disposition: form-data; name="fileContent"\r\nContent-Type: application/octet-stream\r\n'
    "Content-Transfer-Encoding: binary",
}


@pytest.mark.parametrize("head", SCALAR.values(), ids=SCALAR.keys())
def test_every_client_s_fields_are_read(head: str) -> None:
    assert parse(body_of((head, b"upload_slice_init"))) == [("op", b"upload_slice_init")]


@pytest.mark.parametrize("head", FILE.values(), ids=FILE.keys())
def test_every_client_s_file_part_is_read(head: str) -> None:
    ((name, data),) = parse(body_of((head, b"\x00\r\n--\r\n\xff")))
    assert (name.lower(), data) == ("filecontent", b"\x00\r\n--\r\n\xff")


#: Bytes in which delimiters and prefixes of delimiters are likely.
tricky_bytes = st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r", b"\n", b"-", BOUNDARY, b"\r\n--", b"\r\n--" + BOUNDARY[:-1], b"x", b"\x00"])
).map(b"".join)
contents = st.one_of(st.binary(max_size=300), tricky_bytes).filter(
    lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data
)


@given(st.lists(contents, max_size=4), st.lists(st.integers(0, 2000), max_size=60), st.booleans())
def test_parts_do_not_depend_on_how_the_body_arrives(data: list[bytes], cuts: list[int], moving: bool) -> None:
    parts = [(f"part{number}", each) for number, each in enumerate(data)]
    body = body_of(*((f'Content-Disposition: form-data; name="{name}"', each) for name, each in parts))
    assert parse(body, cuts, moving=moving) == parts


def test_one_byte_at_a_time_is_enough() -> None:
    body = body_of((SCALAR["py"], b"a"), (SCALAR["java"], b""), (FILE["node"], b"\r\n--" + BOUNDARY[:-1]))
    assert parse(body, list(range(len(body))), moving=True) == parse(body)


def test_preamble_and_epilogue_are_skipped() -> None:
    body = b"this is a form\r\n" + body_of((SCALAR["py"], b"a")) + b"and this was one"
    assert parse(body) == [("op", b"a")]


@pytest.mark.parametrize(
    "body",
    [
        b"--" + BOUNDARY + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n",
        b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; filename="x"\r\n\r\n',
        b"--" + BOUNDARY + b"garbage\r\n",
        b"--" + BOUNDARY + b"\r\n" + b"x" * 20_000,
    ],
    ids=["no disposition", "no name", "garbage behind the delimiter", "endless headers"],
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(MultipartError):
        MultipartParser(BOUNDARY).feed(bytearray(body), 0, len(body))


def test_the_boundary_may_be_bare_or_quoted() -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b;c"') == b"a b;c"
    assert boundary_of("application/json") is None


def test_a_strict_server_refuses_a_quoted_boundary() -> None:
    with pytest.raises(MultipartError):
        boundary_of('multipart/form-data; boundary="abc"', strict=True)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=é"]
)
def test_a_form_needs_a_boundary(content_type: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(content_type)
