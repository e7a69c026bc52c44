"""The audit: who did what, written in the transaction that did it."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from worker.jobs import api_keys
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.command_results import CommandResult


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Attributes:
        name: as the history of a job names it, or a person or program outside the API.
        key: of the request; None outside the API.
        person: whom the key's owner names; it is trusted as far as the key is.
        reason: why; None if none was given.
    """

    name: str
    key: ApiKey | None = None
    person: str | None = None
    reason: str | None = None


REMOTE_CONTROL = Actor("Celery's remote control")
"""Flower, or another program with access to the broker; a revoke does not say who sent it."""


def record(tx: Connection, by: Actor, action: str, what: Mapping[str, Any], *, changed: int, refused: int = 0) -> None:
    """Write down an action, in its transaction.

    Args:
        tx: that transaction.
        by: who acts.
        action: `job.cancel`, `store.pause`, `key.create`, …
        what: what was acted on, and with which options.
        changed: how many of it the action has changed.
        refused: how many it was refused for.
    """
    params = {
        "actor": by.name,
        "key_id": None if by.key is None else by.key.id,
        "key_name": None if by.key is None else by.key.name,
        "tenant": None if by.key is None else by.key.tenant,
        "person": by.person,
        "action": action,
        "what": Jsonb(dict(what)),
        "reason": by.reason,
        "changed": changed,
        "refused": refused,
    }
    tx.execute(sql("audit"), params)


def record_jobs(tx: Connection, by: Actor, action: str, results: Sequence[CommandResult], **options: Any) -> None:
    """Write down a command on jobs, by its results; ``options`` that are false are left out."""
    jobs = list(dict.fromkeys(str(result.job_id) for result in results))
    what = {"jobs": jobs, **{name: value for name, value in options.items() if value is not False}}
    changed = {result.job_id for result in results if result.changed}
    refused = {result.job_id for result in results if result.refusal is not None}
    record(tx, by, f"job.{action}", what, changed=len(changed), refused=len(refused))


def record_key(tx: Connection, by: Actor, action: str, key: ApiKey, *, changed: bool = True) -> None:
    """Write down what was done to an API key."""
    what = {"key": str(key.id), "name": key.name, "tenant": key.tenant, "scopes": sorted(key.scopes)}
    record(tx, by, f"key.{action}", what, changed=int(changed))


def revoke_key(tx: Connection, key_id: UUID, by: Actor) -> ApiKey:
    """Revoke a key, and write that down; repeating it changes nothing, and is written down as such.

    Raises:
        NotFound: there is no such key.
    """
    with tx.transaction():
        key = api_keys.revoke_key(tx, key_id)
        row = tx.execute("SELECT now() AS now").fetchone()
        record_key(tx, by, "revoke", key, changed=row is not None and row["now"] == key.revoked_at)
    return key


def os_user() -> str:
    """Return how the audit names a user of the operating system."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = str(os.getuid())
    return f"user {name} on {socket.gethostname()}"
