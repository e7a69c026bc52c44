"""Bulk actions: an action on all jobs that match a filter, durable from its confirmation on.

The leader carries it out in batches (`worker/maintenance/bulk.py`), newest job first: of several jobs for one target
the newest is put back, as `control.retry` does. The cursor is written in the transaction of its batch. So a batch has
its effect once, whatever is killed. The filter is compared when a batch is taken: a job that does not match any more
is left as it is. Its times are fixed at the confirmation, and no later job matches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from psycopg.types.json import Jsonb

from worker.errors import NotFound, Refused
from worker.ids import new_id
from worker.jobs import audit, control
from worker.jobs.api_keys import ApiKey
from worker.jobs.audit import Actor
from worker.jobs.bulk_rows import Action, BulkAction
from worker.jobs.filters import Filter
from worker.jobs.places import retry_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.config.profiles import Profiles
    from worker.db.pool import Connection
    from worker.jobs.bulk_rows import Refusals
    from worker.jobs.command_results import CommandResult
    from worker.jobs.commands import Acting
    from worker.jobs.documents import JsonObject

EXAMPLES_MAX = 3
"""Of so many refused jobs a bulk action keeps id and message, for each code."""


class Common(TypedDict):
    """What every command takes."""

    tenant: str | None
    cause: dict[str, str]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A bulk action that was confirmed.

    Attributes:
        action: what is done.
        which: to which jobs; see `fixed`.
        options: of the action: `priority`, `scratch`.
        total: how many jobs match.
    """

    action: Action
    which: Filter
    options: Mapping[str, Any]
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a batch has done.

    Attributes:
        taken: how many jobs it had.
        finished: whether the action is done.
    """

    taken: int
    finished: bool


def check_has_condition(which: Filter, tenant: str | None) -> None:
    """See that a filter does not match every job of those who ask.

    Raises:
        Refused: `filter_required`.
    """
    if (which if tenant is None else replace(which, tenant=None)) == Filter():
        advice = "Name the jobs by a filter, such as state=failed; docs/api.md lists all parameters."
        raise Refused("the filter has no condition: it would match every job", code="filter_required", advice=advice)


def fixed(which: Filter, now: datetime) -> Filter:
    """Return the filter with times instead of durations, for jobs that were created before ``now``."""
    older, newer = which.older_than_s, which.newer_than_s
    before = [which.created_before, now, None if older is None else now - timedelta(seconds=older)]
    since = [which.created_from, None if newer is None else now - timedelta(seconds=newer)]
    return replace(
        which,
        created_before=min(each for each in before if each is not None),
        created_from=max((each for each in since if each is not None), default=None),
        newer_than_s=None,
        older_than_s=None,
    )


def begin(tx: Connection, confirmed: Confirmed, acting: Acting) -> BulkAction:
    """Write down a bulk action, in a transaction; the leader begins it within about a second."""
    key = acting.key
    params = {
        "id": new_id(),
        "tenant": key.only_tenant,
        "action": confirmed.action,
        "filter": confirmed.which.query(),
        "options": Jsonb(dict(confirmed.options)),
        "actor": key.actor,
        "key_id": key.id,
        "key_name": key.name,
        "key_tenant": key.tenant,
        "person": acting.person,
        "reason": acting.reason,
        "total": confirmed.total,
    }
    row = tx.execute(
        "INSERT INTO bulk_action (id, tenant, action, filter, options, actor, key_id, key_name, key_tenant, person,"
        " reason, total) VALUES (%(id)s, %(tenant)s, %(action)s, %(filter)s, %(options)s::jsonb, %(actor)s, %(key_id)s,"
        " %(key_name)s, %(key_tenant)s, %(person)s, %(reason)s, %(total)s) RETURNING *",
        params,
    ).fetchone()
    assert row is not None
    begun = BulkAction.from_row(row)
    audit.record(tx, acting.by, f"jobs.{begun.action}", {**_what(begun), "total": begun.total}, changed=0)
    return begun


def find(tx: Connection, action_id: UUID, tenant: str | None) -> BulkAction:
    """Return a bulk action.

    Raises:
        NotFound: there is none that a key of this tenant sees (None: of any).
    """
    row = tx.execute(
        "SELECT * FROM bulk_action WHERE id = %(id)s AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)",
        {"id": action_id, "tenant": tenant},
    ).fetchone()
    if row is None:
        advice = "Check the id; a tenant sees its own bulk actions only."
        raise NotFound(f"there is no bulk action {action_id}", advice=advice)
    return BulkAction.from_row(row)


def list_actions(tx: Connection, tenant: str | None, after: UUID | None, limit: int) -> list[BulkAction]:
    """Return the bulk actions that a key of this tenant sees (None: all), newest first, those below ``after``."""
    rows = tx.execute(
        "SELECT * FROM bulk_action WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"
        " AND (%(after)s::uuid IS NULL OR id < %(after)s) ORDER BY id DESC LIMIT %(limit)s",
        {"tenant": tenant, "after": after, "limit": limit},
    )
    return [BulkAction.from_row(row) for row in rows]


def stop(tx: Connection, action_id: UUID, acting: Acting) -> BulkAction:
    """Take no more batch of a bulk action, in a transaction; what is done stays done. Repeating it changes nothing.

    Raises:
        NotFound: there is none that the key sees.
    """
    find(tx, action_id, acting.key.only_tenant)
    row = tx.execute(
        "UPDATE bulk_action SET state = 'stopped', finished_at = now(), updated_at = now()"
        " WHERE id = %(id)s AND state = 'running' RETURNING *",
        {"id": action_id},
    ).fetchone()
    found = BulkAction.from_row(row) if row else find(tx, action_id, acting.key.only_tenant)
    audit.record(tx, acting.by, "jobs.stop", _what(found) | _figures(found), changed=int(row is not None))
    return found


def running(tx: Connection) -> list[UUID]:
    """Return the bulk actions that are not done, oldest first."""
    return [row["id"] for row in tx.execute("SELECT id FROM bulk_action WHERE state = 'running' ORDER BY id")]


def run_batch(tx: Connection, action_id: UUID, profiles: Profiles, limit: int) -> Progress | None:
    """Carry out the next batch of a bulk action, in a transaction.

    Returns:
        None: the action is done or stopped, or another leader is at it.
    """
    from worker.jobs.bulk_spans import next_batch  # noqa: PLC0415 - most workers never need SQLAlchemy's models

    row = tx.execute(
        "SELECT * FROM bulk_action WHERE id = %(id)s AND state = 'running' FOR NO KEY UPDATE SKIP LOCKED",
        {"id": action_id},
    ).fetchone()
    if row is None:
        return None
    action = BulkAction.from_row(row)
    batch = next_batch(tx, action.filter, action.cursor, limit)
    results = _act(tx, action, batch.jobs, profiles) if batch.jobs else []
    params = {
        "id": action_id,
        "state": "done" if batch.last else "running",
        "cursor": batch.cursor,
        "taken": len(results),
        "changed": sum(result.changed for result in results),
        "refused": sum(result.refusal is not None for result in results),
        "refusals": Jsonb(_refusals(action.refusals, results)),
        "last": batch.last,
    }
    row = tx.execute(
        "UPDATE bulk_action SET state = %(state)s, cursor = %(cursor)s, done = done + %(taken)s,"
        " changed = changed + %(changed)s, refused = refused + %(refused)s, refusals = %(refusals)s::jsonb,"
        " updated_at = now(), finished_at = CASE WHEN %(last)s THEN now() END WHERE id = %(id)s RETURNING *",
        params,
    ).fetchone()
    assert row is not None
    if batch.last:
        ended = BulkAction.from_row(row)
        figures = {"changed": ended.changed, "refused": ended.refused}
        audit.record(tx, _actor(ended), f"jobs.{ended.action}.done", _what(ended) | {"done": ended.done}, **figures)
    return Progress(len(results), batch.last)


def _act(tx: Connection, bulk: BulkAction, jobs: Sequence[UUID], profiles: Profiles) -> list[CommandResult]:
    options, actor, action = bulk.options, bulk.actor, bulk.action
    said = {"reason": bulk.reason, "person": bulk.person, "bulk_action": str(bulk.id)}
    cause = {name: text for name, text in said.items() if text is not None}
    common: Common = {"tenant": bulk.tenant, "cause": cause}
    match action:
        case Action.CANCEL | Action.ABANDON:
            return control.cancel(tx, jobs, actor, abandon=action is Action.ABANDON, **common)
        case Action.PAUSE:
            return control.pause(tx, jobs, actor, bulk.reason, **common)
        case Action.RESUME:
            return control.resume(tx, jobs, actor, **common)
        case Action.PRIORITY:
            return control.prioritise(tx, jobs, actor, options["priority"], **common)
        case Action.START:
            return control.start_now(tx, jobs, actor, **common)
        case Action.RETRY:
            scratch = options.get("from") == "scratch"
            return control.retry(
                tx, jobs, actor, scratch=scratch, check=lambda job: retry_refusal(profiles, job), **common
            )


def _refusals(known: Mapping[str, Refusals], results: Sequence[CommandResult]) -> dict[str, Refusals]:
    """Add the refusals of a batch: of each code the count, and the first examples."""
    found: dict[str, Refusals] = {
        code: {"count": each["count"], "examples": list(each["examples"])} for code, each in known.items()
    }
    for result in results:
        if (refusal := result.refusal) is not None:
            of_code = found.setdefault(refusal.code, {"count": 0, "examples": []})
            of_code["count"] += 1
            if len(of_code["examples"]) < EXAMPLES_MAX:
                of_code["examples"].append({"id": str(result.job_id), "message": refusal.message})
    return found


def _actor(bulk: BulkAction) -> Actor:
    key = ApiKey(bulk.key_id, bulk.key_name, bulk.key_tenant, frozenset(), bulk.created_at)
    return Actor(bulk.actor, key, bulk.person, bulk.reason)


def _what(bulk: BulkAction) -> JsonObject:
    return {"bulk_action": str(bulk.id), "filter": bulk.filter, **bulk.options}


def _figures(bulk: BulkAction) -> JsonObject:
    return {"total": bulk.total, "done": bulk.done}
