"""The query of a request for an action on a job."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from api.schemas.base import Flag, QueryParameters


class _Retry(QueryParameters):
    force: Annotated[Flag, Field(description="Replace what a later job has put there.")] = False


RetryQuery = Annotated[_Retry, Query()]
