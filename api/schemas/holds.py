"""Requests to hold and release a store or a tenant."""

from typing import Annotated

from fastapi import Path
from pydantic import Field

from api.schemas.base import Text

HoldName = Annotated[Text, Field(min_length=1, max_length=255), Path(description="The store's or tenant's name.")]
