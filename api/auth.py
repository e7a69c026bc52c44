"""Authentication by API key, and the scope that a route requires."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.problems import Unauthenticated
from api.state import app_state_of
from worker.errors import Forbidden
from worker.jobs.api_keys import ApiKey, KeyRing, Scope

SCHEME = {"key": {"type": "http", "scheme": "bearer", "description": "A key from `sliceway keys create`."}}
"""The security scheme of the OpenAPI document."""


def _requires(scope: Scope) -> Callable[[Request], Awaitable[ApiKey]]:
    async def check(request: Request) -> ApiKey:
        key = await _key(app_state_of(request).keys, request.headers.get("authorization", ""))
        if not key.may(scope):
            raise Forbidden(f"the key lacks the scope {scope}", advice=f"Use a key with the scope {scope}.")
        return key

    return check


async def _key(keys: KeyRing, authorization: str) -> ApiKey:
    """Return the key of the request. A key that was used a moment ago costs no query and no thread."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise Unauthenticated("the request has no key")
    key = keys.remembered(text)
    if key is None:
        key = await run_in_threadpool(keys.find, text)
        if key is not None:
            asyncio.get_running_loop().run_in_executor(None, keys.note_use, text)
    elif keys.is_due(text):
        asyncio.get_running_loop().run_in_executor(None, keys.renew, text)
    if key is None:
        raise Unauthenticated("the key is not known or was revoked")
    return key


submitter = _requires(Scope.SUBMIT)
"""Returns the key of a request that enqueues."""
Reader = Annotated[ApiKey, Depends(_requires(Scope.READ))]
operator = _requires(Scope.OPERATE)
"""Returns the key of a request that acts on jobs."""
