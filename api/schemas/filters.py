"""What comes in behind the question mark; an unknown name is refused, since a misspelt filter matches everything."""

import re
from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from api.schemas.jobs import Text
from worker.errors import Forbidden, Refused
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.queries import Filter
from worker.jobs.states import JobState

_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)
_LABEL_PARTS = re.compile("([=:])")
_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")


def _moment(value: object) -> object:
    """Refuse what pydantic takes for a time beside RFC 3339: seconds since 1970, a time without seconds."""
    if isinstance(value, str) and not _DATE_TIME.fullmatch(value):
        raise ValueError("must be a date and time with seconds and an offset, such as 2026-01-31T12:00:00Z")
    return value


def _integer(value: object) -> object:
    """Refuse what pydantic takes for an integer beside its decimal digits: `1.0`, `1_0`, `+1`, ` 1`."""
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError("must be an integer")
    return value


def _flag(value: object) -> object:
    """Refuse what pydantic takes for a truth value beside JSON's: `yes`, `on`, `1`."""
    if isinstance(value, str) and value not in {"true", "false"}:
        raise ValueError("must be true or false")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
Integer = Annotated[int, BeforeValidator(_integer)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Cursor = Annotated[Annotated[str, Field(max_length=100)] | None, Field(description="`next_cursor` of the page before.")]
Word = Annotated[Text, Field(min_length=1, max_length=1024)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Enqueue(_Query):
    dry_run: Annotated[Flag, Field(description="Only say whether it would be accepted.")] = False


class _Retry(_Query):
    force: Annotated[Flag, Field(description="Replace what a later job has put there.")] = False


class _Wait(_Query):
    wait: Annotated[
        str, Field(pattern=r"^([0-9]|[1-5][0-9]|60)s$", description="How long to wait for its end; at most `60s`.")
    ] = "0s"

    @property
    def seconds(self) -> int:
        """How long to wait."""
        return int(self.wait[:-1])


class _Page(_Query):
    cursor: Cursor = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 100


class _Jobs(_Query):
    state: Annotated[list[JobState], Field(description="Any of these.", max_length=len(JobState))] = []
    store: Word | None = None
    key_prefix: Word | None = None
    label: Annotated[
        list[Annotated[Word, Field(pattern=r"^[^\x00=:]+[=:][^\x00]*$")]],
        Field(description="`name=value` or `name:value`, parted by the first of both; all of these.", max_length=32),
    ] = []
    error_code: Word | None = None
    created_from: Moment | None = None
    created_before: Moment | None = None
    tenant: Annotated[Word | None, Field(description="Needs the scope `admin`, unless it is one's own.")] = None
    cursor: Cursor = None
    limit: Annotated[Integer, Field(ge=1, le=500)] = 50

    def filter(self, key: ApiKey) -> Filter:
        """Return what to list, within what the key sees.

        Raises:
            Forbidden: it names another tenant.
            Refused: ``invalid``, for a label that is asked for with two values.
        """
        if self.tenant is not None and not key.sees(self.tenant):
            raise Forbidden("the key lacks the scope admin for another tenant's jobs")
        pairs = {(name, value) for name, _, value in (_LABEL_PARTS.split(label, maxsplit=1) for label in self.label)}
        labels = dict(pairs)
        if len(labels) < len(pairs):
            raise Refused("label: one name with two values matches nothing")
        return Filter(
            tenant=self.tenant if key.may(Scope.ADMIN) else key.tenant,
            states=self.state,
            store=self.store,
            key_prefix=self.key_prefix,
            labels=labels,
            error_code=self.error_code,
            created_from=self.created_from,
            created_before=self.created_before,
        )


EnqueueQuery = Annotated[_Enqueue, Query()]
RetryQuery = Annotated[_Retry, Query()]
WaitQuery = Annotated[_Wait, Query()]
PageQuery = Annotated[_Page, Query()]
JobsQuery = Annotated[_Jobs, Query()]
