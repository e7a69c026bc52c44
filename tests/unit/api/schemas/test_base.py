"""Types of fields."""

from __future__ import annotations

import pytest

from api.schemas.base import duration_s


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert duration_s(text, 604_800) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1w", "1.5h", "-1s", "8d", "12345678s", "1s\n", "\u0661s", 1, None])
def test_any_other_text_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="such as '30s'"):
        duration_s(text, 604_800)
