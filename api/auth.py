"""Who asks, and whether they may."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.deps import FrontDep
from api.problems import Unauthenticated
from worker.errors import Forbidden
from worker.jobs.keys import ApiKey, Scope

_bearer = HTTPBearer(auto_error=False, description="A key from `sliceway keys create`.", scheme_name="key")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _key(front: FrontDep, credentials: _Credentials) -> ApiKey:
    """Return the key that was sent. A key used a moment ago costs neither a query nor a thread."""
    if credentials is None:
        raise Unauthenticated("the request has no key")
    text = credentials.credentials
    key = front.keys.remembered(text) or await run_in_threadpool(front.keys.find, text)
    if key is None:
        raise Unauthenticated("the key is not known or was revoked")
    return key


def _needs(scope: Scope) -> Callable[[ApiKey], Awaitable[ApiKey]]:
    async def check(key: Annotated[ApiKey, Depends(_key)]) -> ApiKey:
        if not key.may(scope):
            raise Forbidden(f"the key lacks the scope {scope}", advice=f"Use a key with the scope {scope}.")
        return key

    return check


Submitter = Annotated[ApiKey, Depends(_needs(Scope.SUBMIT))]
Reader = Annotated[ApiKey, Depends(_needs(Scope.READ))]
Operator = Annotated[ApiKey, Depends(_needs(Scope.OPERATE))]
