"""What every route leans on: one `Front` a process, and bodies that are bounded before they are parsed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from api.problems import TooLarge, UnsupportedMediaType
from api.submissions import Submissions
from api.waiters import Waiters
from worker.db import Database
from worker.jobs.intake import Intake
from worker.jobs.keys import KeyRing
from worker.jobs.service import Quota
from worker.limits import BATCH_MAX_BYTES, REQUEST_MAX_BYTES
from worker.settings import Settings

_DRAINED_BYTES = 4 * BATCH_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Front:
    """What one API process has."""

    settings: Settings
    database: Database
    keys: KeyRing
    intake: Intake
    quota: Quota
    submissions: Submissions
    waiters: Waiters


def front_of(request: Request) -> Front:
    """Return what the process that serves the request has."""
    front: Front = request.app.state.front
    return front


async def _front(request: Request) -> Front:  # not a `def`: that would take a thread
    return front_of(request)


FrontDep = Annotated[Front, Depends(_front)]


def _bounded(most_bytes: int) -> Callable[[Request], Awaitable[bytes]]:
    async def body(request: Request) -> bytes:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(f"the body is {kind}, not application/json")
        pieces: list[bytes] = []
        taken = 0
        async for piece in request.stream():
            taken += len(piece)
            if taken <= most_bytes:
                pieces.append(piece)
            elif taken > _DRAINED_BYTES:  # until then it is read to its end: a client that still sends hears no answer
                break
        if taken > most_bytes:
            raise TooLarge(f"the body is larger than {most_bytes} bytes")
        return b"".join(pieces)

    return body


JobBody = Annotated[bytes, Depends(_bounded(REQUEST_MAX_BYTES))]
BatchBody = Annotated[bytes, Depends(_bounded(BATCH_MAX_BYTES))]
