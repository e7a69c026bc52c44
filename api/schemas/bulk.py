"""Requests for an action on all jobs that match a filter."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api.schemas.actions import ActionBody
from worker.jobs.bulk_rows import Action

FILTER_MAX_CHARS = 4096


class BulkBody(ActionBody):
    """An action on all jobs that match: counted first, then confirmed."""

    action: Action
    filter: Annotated[
        str,
        Field(
            max_length=FILTER_MAX_CHARS,
            pattern=r"^[^\x00]*$",
            description="The query of `GET /v1/jobs`: `state=failed&label.order=17`. It needs a condition.",
        ),
    ]
    priority: Annotated[int, Field(ge=0, le=9, description="Of `priority`, which needs it. 0 goes first.")] | None = (
        None
    )
    from_: Annotated[
        Literal["missing", "scratch"] | None,
        Field(alias="from", description="Of `retry`: what is kept of a job; see there."),
    ] = None
    dry_run: Annotated[bool, Field(description="Count the jobs and show some; nothing is changed.")] = False
    confirm: Annotated[int, Field(ge=0, le=2**31 - 1, description="Do it, if exactly so many jobs match.")] | None = (
        None
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.priority is None) == (self.action == Action.PRIORITY):
            raise ValueError("priority belongs to the action priority, which needs it")
        if self.from_ is not None and self.action != Action.RETRY:
            raise ValueError("from belongs to the action retry")
        if self.dry_run == (self.confirm is not None):
            raise ValueError("give either dry_run: true or confirm with the count of a dry run")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options of the action that were given."""
        given = {"priority": self.priority, "from": self.from_}
        return {name: value for name, value in given.items() if value is not None}
