"""How far a job is, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from sqlalchemy import Row

    from worker.jobs.queries import InFlight

Bytes = Annotated[int, Field(ge=0)]


class Progress(BaseModel):
    """How far it is; sizes are known once the file was opened. `percent` never falls but with a new epoch."""

    bytes_done: Annotated[Bytes, Field(description="Of slices that the store has.")]
    bytes_in_flight: Annotated[
        Bytes, Field(description="Acknowledged bytes of what is not done: on their way, or to be sent again.")
    ]
    size_bytes: Bytes | None
    slices_done: int | None
    slices_total: int | None
    percent: Annotated[float | None, Field(description="Done and in flight; 100 only once it has succeeded.")]


def progress_of(row: Row[Any], in_flight: InFlight) -> dict[str, Any]:
    """Return a job's `Progress`, by its row and what is in flight of it."""
    percent = None
    if row.state == JobState.SUCCEEDED:
        percent = 100.0
    elif in_flight.size_bytes is not None:
        acknowledged = row.bytes_done + in_flight.bytes
        # rounded down, and 100 means stored
        percent = min(999, 1000 * acknowledged // max(1, in_flight.size_bytes)) / 10
    return {
        "bytes_done": row.bytes_done,
        "bytes_in_flight": in_flight.bytes,
        "size_bytes": in_flight.size_bytes,
        "slices_done": None if row.slices_total is None else row.slices_total - (row.slices_left or 0),
        "slices_total": row.slices_total,
        "percent": percent,
    }
