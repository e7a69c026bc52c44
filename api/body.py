"""What is posted to be enqueued: its body, bounded before it is parsed, with whoever sent it.

In one dependency, not three: each costs FastAPI as much as validating the body.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from api.auth import submitter
from api.problems import TooLarge, UnsupportedMediaType
from api.state import AppState, app_state_of
from worker.jobs.api_keys import ApiKey
from worker.protocols.spec import BATCH_MAX_BYTES, REQUEST_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Posted:
    """A body, the key that it came with, and what the process has to serve it."""

    body: bytes
    key: ApiKey
    app_state: AppState


def _bounded(most_bytes: int) -> Callable[[Request], Awaitable[Posted]]:
    async def posted(request: Request) -> Posted:
        key = await submitter(request)  # before the body: a stranger's is not read
        return Posted(await _body(request, most_bytes), key, app_state_of(request))

    return posted


async def _body(request: Request, most_bytes: int) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType(f"the body is {kind}, not application/json")
    pieces: list[bytes] = []
    taken = 0
    async for piece in request.stream():
        taken += len(piece)
        if taken > most_bytes:
            raise TooLarge(f"the body is larger than {most_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


PostedJob = Annotated[Posted, Depends(_bounded(REQUEST_MAX_BYTES))]
PostedBatch = Annotated[Posted, Depends(_bounded(BATCH_MAX_BYTES))]
