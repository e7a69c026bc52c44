from __future__ import annotations

from email import policy
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stores.cos_json.form import PIECE_BYTES, Form

CURL_BOUNDARY = "------------------------d74496d66958873e"  # 40 characters, as curl makes them


def whole(form: Form) -> bytes:
    return b"".join(form.pieces())


def parsed(form: Form) -> list[tuple[str, bytes]]:
    """Return the parts, by an independent parser."""
    head = f"Content-Type: {form.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + whole(form))
    return [
        (str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True) or b"")
        for part in message.iter_parts()
    ]


def test_the_init_of_the_vendors_example_has_361_bytes() -> None:
    fields = [("op", "upload_slice_init"), ("filesize", "36864"), ("slice_size", "524288")]
    form = Form(fields, boundary=CURL_BOUNDARY)
    assert form.length_bytes == len(whole(form)) == 361
    assert whole(form).startswith(
        f'--{CURL_BOUNDARY}\r\nContent-Disposition: form-data; name="op"\r\n\r\nupload_slice_init\r\n'.encode()
    )
    assert whole(form).endswith(f"\r\n--{CURL_BOUNDARY}--\r\n".encode())


def test_the_boundary_is_unquoted_and_new_each_time() -> None:
    one, other = Form([("op", "upload")]), Form([("op", "upload")])
    assert one.content_type.startswith("multipart/form-data; boundary=sliceway-")
    assert '"' not in one.content_type
    assert one.content_type != other.content_type


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
            st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
        )
    ),
    st.none() | st.binary(max_size=300).filter(lambda data: b"\n" not in data and b"\r" not in data),
)
def test_a_form_is_read_back_as_it_was_written(fields: list[tuple[str, str]], content: bytes | None) -> None:
    fields = [("op", "upload"), *fields]
    form = Form(fields, memoryview(content) if content is not None else None)
    expected = [(name, value.encode()) for name, value in fields]
    if content is not None:
        expected.append(("filecontent", content))
    assert parsed(form) == expected
    assert form.length_bytes == len(whole(form))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * 1024 * 1024])
def test_the_content_is_sent_in_views_of_the_callers_buffer(size: int) -> None:
    buffer = bytearray(size)
    form = Form([("op", "upload_slice_data")], memoryview(buffer))
    pieces = list(form.pieces())
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert sum(len(view) for view in views) == size
    assert all(view.obj is buffer and len(view) <= PIECE_BYTES for view in views)
    assert form.length_bytes == sum(len(piece) for piece in pieces)


def test_a_form_can_be_sent_again() -> None:
    form = Form([("op", "upload")], memoryview(b"content"))
    assert whole(form) == whole(form)
