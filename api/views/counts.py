"""What the API returns about counts of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from worker.jobs.counts import Counts


class Group(BaseModel):
    """How many jobs have a value."""

    value: Annotated[str | None, Field(description="Null: the jobs that have none.")]
    count: Annotated[int, Field(ge=0)]


class CountsView(BaseModel):
    """How many jobs match, in groups."""

    group_by: str
    groups: Annotated[list[Group], Field(description="The largest first; 1,000 at most.")]
    groups_omitted: Annotated[int, Field(ge=0, description="How many more groups there are.")]
    total: Annotated[int, Field(ge=0, description="Jobs in all groups.")]
    approximate: Annotated[bool, Field(description="A sample was counted; `exact=true` counts every job.")]


def counts_view(group_by: str, counts: Counts) -> CountsView:
    """Return the view of counts."""
    return CountsView(
        group_by=group_by,
        groups=[Group(value=value, count=count) for value, count in counts.groups],
        groups_omitted=counts.groups_total - len(counts.groups),
        total=counts.total,
        approximate=counts.approximate,
    )
