"""Repeats a request while its failure is temporary: a restart of the API or its database, a rate limit, a gateway."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, TypeVar

from worker.client.answers import NotTheApi, RefusedByApi, is_temporary_status
from worker.client.environment import Unreachable
from worker.errors import SlicewayError
from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
LONGEST_RETRY_AFTER_S = 60.0


def is_temporary(error: SlicewayError) -> bool:
    """Say whether the same request may succeed later."""
    match error:
        case RefusedByApi() | NotTheApi():
            return is_temporary_status(error.status)
        case Unreachable():
            return not any(isinstance(each, ssl.SSLCertVerificationError) for each in chain(error))
        case _:
            return False


def retry_temporary(
    request: Callable[[], _T],
    *,
    timeout_s: float,
    on_failure: Callable[[SlicewayError], None],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """Send an idempotent request until it succeeds, and return its answer.

    Args:
        request: sends the request.
        timeout_s: seconds after which a temporary failure is raised, too.
        on_failure: is called with each temporary failure before the pause.
        pause: sleeps.
        clock: seconds, monotonic.

    Raises:
        SlicewayError: the failure is not temporary, or the time is over.
    """
    until, pause_s = clock() + timeout_s, FIRST_PAUSE_S
    while True:
        try:
            return request()
        except SlicewayError as error:
            left = until - clock()
            if left <= 0 or not is_temporary(error):
                raise
            on_failure(error)
            retry_after_s = min(getattr(error, "retry_after_s", 0.0), LONGEST_RETRY_AFTER_S)
            pause(min(max(pause_s, retry_after_s), left))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
