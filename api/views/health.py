"""What the API returns about the process itself."""

from typing import Literal

from pydantic import BaseModel, Field


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The database is reachable and has every table: jobs can be enqueued. The broker is not needed for that."""

    status: Literal["ready"] = "ready"
    note: str | None = Field(default=None, description="What keeps accepted jobs from going on, if it is seen here.")
