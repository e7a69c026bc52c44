"""Work on large bodies in a thread, one body at a time: several threads would only compete for the interpreter lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
P = ParamSpec("P")

SMALL_BYTES = 16 * 1024
"""Up to this size a body is parsed on the event loop: a thread would cost the request more."""
LARGE_BYTES = 256 * 1024
"""A larger body waits until the large bodies before it have been parsed."""


class LargeBodyRunner:
    """Runs work in a thread of its own, which serves no other requests; used from one event loop."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the work after all that was requested before it."""
        return await anyio.to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
