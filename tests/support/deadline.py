"""How long a test waits, and the wait itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 240.0
"""For what must come. Only a failure takes so long: a loaded machine is none."""


def until(
    done: Callable[[], object], what: str, *, poll_s: float = 0.03, alive: Callable[[], bool] = lambda: True
) -> None:
    """Poll until something is so.

    Raises:
        AssertionError: it is not so within `DEADLINE_S`, or `alive` no longer holds; names it.
    """
    there = wait_until(lambda: bool(done()), timeout_s=DEADLINE_S, poll_s=poll_s, alive=alive)
    assert there, f"not in {DEADLINE_S:g} s: {what}"
