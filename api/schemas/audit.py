"""The query of the audit."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from api.schemas.base import Integer, QueryParameters
from api.schemas.pagination import Cursor


class _Audit(QueryParameters):
    cursor: Cursor = None
    limit: Annotated[Integer, Field(ge=1, le=500)] = 50


AuditQuery = Annotated[_Audit, Query()]
