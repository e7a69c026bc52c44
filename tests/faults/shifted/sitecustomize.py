"""Shifts Python's wall clock, for a machine without libfaketime; Python loads this file at its start.

C code that asks the system for the time does not see the shift.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Self

_OFF_BY_S = float(os.environ["CLOCK_OFF_BY_S"])
_time = time.time


def _shifted() -> float:
    return _time() + _OFF_BY_S


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(_shifted(), tz)


time.time = _shifted
dt.datetime = _Datetime  # type: ignore[misc]
