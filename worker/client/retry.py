"""Waits out what passes: a restart of the API or of its database, too many requests, a gateway without a server."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, TypeVar

from worker.client.answers import NotTheApi, RefusedByApi, passes
from worker.client.environment import Unreachable
from worker.errors import SlicewayError
from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
LONGEST_RETRY_AFTER_S = 60.0


def passing(error: SlicewayError) -> bool:
    """Say whether the same request may be answered otherwise in a while."""
    match error:
        case RefusedByApi() | NotTheApi():
            return passes(error.status)
        case Unreachable():
            return not any(isinstance(each, ssl.SSLCertVerificationError) for each in chain(error))
        case _:
            return False


def wait_out(
    ask: Callable[[], _T],
    *,
    for_s: float,
    note: Callable[[SlicewayError], None],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """Return what a request that may be repeated is answered, once it is.

    Args:
        ask: sends the request.
        for_s: seconds after which the failure is raised; what passes only later is not waited for.
        note: is called with each failure that is waited out.
        pause: sleeps.
        clock: seconds, monotonic.

    Raises:
        SlicewayError: a failure that does not pass, or has not in time.
    """
    until, pause_s = clock() + for_s, FIRST_PAUSE_S
    while True:
        try:
            return ask()
        except SlicewayError as error:
            left = until - clock()
            if left <= 0 or not passing(error):
                raise
            note(error)
            asked_s = min(getattr(error, "retry_after_s", 0.0), LONGEST_RETRY_AFTER_S)
            pause(min(max(pause_s, asked_s), left))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
