"""A finding, and the runner of checks: all run at once, each with a time limit, and none stops another."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker.errors import SlicewayError
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TIMEOUT_S = 10.0
"""Time limit of a check."""
CONNECT_S = 4
CLOCK_FAILED_S = 30.0
"""Signatures of stores are valid for minutes: a store refuses them from a clock that is much further off."""
CLOCK_NOTED_S = 5.0
"""A machine that follows a time server is never so far off."""


class Level(StrEnum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    """It works, and could be better."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found; ``advice`` says what to do, if anything."""

    check: str
    level: Level
    text: str
    advice: str = ""


Check = tuple[str, "Callable[[], Iterator[Finding]]"]


def run(checks: Sequence[Check]) -> list[Finding]:
    """Run the checks at once and return their findings in the order of the checks."""
    running = [_Running(name, check) for name, check in checks]
    until = time.monotonic() + TIMEOUT_S
    return [finding for each in running for finding in each.findings(until)]


class _Running:
    """A check in a thread of its own. The runner abandons the thread after the time limit."""

    def __init__(self, name: str, check: Callable[[], Iterator[Finding]]) -> None:
        self._name = name
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, args=(check,), daemon=True)
        self._thread.start()

    def _run(self, check: Callable[[], Iterator[Finding]]) -> None:
        try:
            for finding in check():
                self._found.append(finding)
        except SlicewayError as error:
            self._found.append(Finding(self._name, Level.FAILED, error.message, error.advice))
        except Exception as error:  # noqa: BLE001 - a failure of any kind is a finding
            self._found.append(Finding(self._name, Level.FAILED, first_line(error), "Correct its address or start it."))

    def findings(self, until: float) -> list[Finding]:
        self._thread.join(max(0.0, until - time.monotonic()))
        found = list(self._found)
        if self._thread.is_alive():
            text = f"no answer within {TIMEOUT_S:.0f} s"
            found.append(Finding(self._name, Level.FAILED, text, "See whether it hangs, or a firewall drops packets."))
        return found


def clock(whose: str, theirs_s: float, now_s: float | None = None) -> Finding:
    """Compare a server's clock (seconds since the epoch) with this machine's."""
    off_s = (time.time() if now_s is None else now_s) - theirs_s
    name = f"clock against {whose}"
    if abs(off_s) <= CLOCK_NOTED_S:
        return Finding(name, Level.OK, f"within {max(1, round(abs(off_s)))} s")
    text = f"this machine is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
    level = Level.FAILED if abs(off_s) > CLOCK_FAILED_S else Level.NOTE
    return Finding(name, level, text, "Let both machines follow a time server (NTP).")
