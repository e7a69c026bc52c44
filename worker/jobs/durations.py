"""Durations as people write them: a number and a unit, such as `90s`, `15m`, `24h` or `7d`."""

from __future__ import annotations

import re

FORM = r"^[0-9]{1,7}[smhd]$"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_s(value: object, max_s: int) -> int:
    """Return the seconds of a duration.

    Raises:
        ValueError: it has another form, or is longer than ``max_s``.
    """
    if isinstance(value, str) and re.fullmatch(FORM, value):
        seconds = int(value[:-1]) * _UNITS_S[value[-1]]
        if seconds <= max_s:
            return seconds
    raise ValueError(f"must be a number and s, m, h or d, such as '30s' or '24h', of at most {max_s} seconds")


def duration_text(seconds: int) -> str:
    """Return the duration in the largest unit that has no remainder."""
    unit, size_s = next((unit, size_s) for unit, size_s in reversed(_UNITS_S.items()) if seconds % size_s == 0)
    return f"{seconds // size_s}{unit}"
