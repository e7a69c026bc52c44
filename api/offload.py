"""Work on large bodies, off the event loop: one at a time, since they would only take turns at the interpreter lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
P = ParamSpec("P")

SMALL_BYTES = 16 * 1024
"""Up to this size a body is read on the event loop: a thread would cost the request more."""
LARGE_BYTES = 256 * 1024
"""A larger body is read when those before it have been."""


class LargeWork:
    """Runs work in a thread that is none of those that serve requests; used from one event loop."""

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the work, after that of those who came earlier."""
        return await anyio.to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
