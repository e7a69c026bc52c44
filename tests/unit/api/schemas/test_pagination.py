"""Cursors of pages."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.schemas.pagination import decode_job_cursor, decode_number_cursor, encode_cursor
from worker.errors import Refused


@given(st.uuids(), st.integers(0, 2**63 - 1))
def test_a_cursor_is_decoded_to_what_was_encoded(job: UUID, number: int) -> None:
    assert decode_job_cursor(encode_cursor(job)) == job
    assert decode_number_cursor(encode_cursor(number)) == number


@pytest.mark.parametrize("text", ["", "x", "MTIz", "\u00e9", "=", "0" * 99, encode_cursor(17)])
def test_any_other_text_is_no_cursor_of_jobs(text: str) -> None:
    with pytest.raises(Refused, match="cursor"):
        decode_job_cursor(text)


@pytest.mark.parametrize(
    "text", ["", "x", "\u00e9", "=", encode_cursor(2**63), encode_cursor(-2), encode_cursor(UUID(int=0))]
)
def test_any_other_text_is_no_cursor_of_numbers(text: str) -> None:
    with pytest.raises(Refused, match="cursor"):
        decode_number_cursor(text)


def test_a_page_without_a_cursor_is_the_first() -> None:
    assert decode_job_cursor(None) is None
    assert decode_number_cursor(None) == -1
