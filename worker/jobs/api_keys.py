"""Keys to the API: which tenant a request acts for, and what it may do.

A key is 256 random bits that its owner sees once; kept is their SHA-256, which at that length needs neither salt nor
stretching.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worker.db.pool import UNAVAILABLE
from worker.db.repetition import run_idempotent
from worker.errors import NotFound, Refused
from worker.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from worker.db.pool import Connection, Database

PREFIX = "slw_"
FRESH_FOR_S = 2.0
"""A revoked key is refused everywhere after this time."""
RENEW_AFTER_S = 1.0
"""A key in use is looked up so early, beside its requests: none of them has to wait for that."""
NOTED_EVERY_S = 60.0
"""The use of a key is noted so often at most, beside its requests."""
_REMEMBERED = 10_000
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_MAX_CHARS = 100


class Scope(StrEnum):
    """What a key may be used for."""

    SUBMIT = "submit"
    """Enqueue jobs."""
    READ = "read"
    """Look at jobs."""
    OPERATE = "operate"
    """Retry and cancel jobs."""
    ADMIN = "admin"
    """All of it, on the jobs of every tenant."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret."""

    id: UUID
    name: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """When the API noted its use last, to a minute."""

    def may(self, scope: Scope) -> bool:
        """Say whether the key can be used for that."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, tenant: str) -> bool:
        """Say whether the tenant's jobs are there for this key."""
        return tenant == self.tenant or Scope.ADMIN in self.scopes

    @property
    def only_tenant(self) -> str | None:
        """The one tenant whose jobs are there for this key; None: every tenant's are."""
        return None if Scope.ADMIN in self.scopes else self.tenant

    @property
    def actor(self) -> str:
        """How the history names whoever used the key."""
        return f"key {self.id}"


def create_key(tx: Connection, tenant: str, scopes: Iterable[Scope], name: str | None = None) -> tuple[ApiKey, str]:
    """Make a key; its text is returned here and never again.

    Not to be repeated where the answer to its commit is lost: that would make a second key, beside one whose text is
    lost.

    Raises:
        Refused: ``bad_key_name``, ``bad_tenant`` or ``bad_scopes``.
    """
    wanted = sorted(set(scopes))
    if not wanted:
        raise Refused(
            "a key without a scope opens nothing", code="bad_scopes", advice=f"Name some of {', '.join(Scope)}."
        )
    if not _TENANT.fullmatch(tenant):
        raise Refused(
            f"{tenant!r} cannot be a tenant's name",
            code="bad_tenant",
            advice="Use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit.",
        )
    name = name or tenant
    if len(name) > _NAME_MAX_CHARS or not name.isprintable():
        raise Refused(
            "the key's name is too long or not printable",
            code="bad_key_name",
            advice=f"Use at most {_NAME_MAX_CHARS} printable characters.",
        )
    text = PREFIX + secrets.token_urlsafe(32)
    row = tx.execute(
        "INSERT INTO api_key (id, name, digest, tenant, scopes) VALUES (%s, %s, %s, %s, %s) RETURNING *",
        (new_id(), name, _digest(text), tenant, [str(scope) for scope in wanted]),
    ).fetchone()
    assert row is not None
    return _key(row), text


def list_keys(tx: Connection, tenant: str | None = None) -> list[ApiKey]:
    """Return the keys of a tenant, or all, oldest first; revoked ones too."""
    rows = tx.execute(
        "SELECT * FROM api_key WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s ORDER BY id",
        {"tenant": tenant},
    )
    return [_key(row) for row in rows]


def revoke_key(tx: Connection, key_id: UUID) -> ApiKey:
    """Refuse the key from now on (everywhere after `FRESH_FOR_S`); repeating it changes nothing.

    Raises:
        NotFound: there is no such key.
    """
    row = tx.execute(
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s RETURNING *", (key_id,)
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no key {key_id}", advice="`sliceway keys list` names them all.")
    return _key(row)


def find_key(tx: Connection, text: str) -> ApiKey | None:
    """Return the key that the text opens with, unless it was revoked."""
    row = tx.execute("SELECT * FROM api_key WHERE digest = %s AND revoked_at IS NULL", (_digest(text),)).fetchone()
    return _key(row) if row else None


def note_use(tx: Connection, key_id: UUID) -> None:
    """Note that the key is in use, unless another process has done so within `NOTED_EVERY_S`."""
    tx.execute(
        "UPDATE api_key SET last_used_at = now() WHERE id = %s"
        " AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %s))",
        (key_id, NOTED_EVERY_S),
    )


def not_good(tx: Connection, key_ids: Collection[UUID]) -> set[UUID]:
    """Return which of the keys were revoked (or are not there any more)."""
    rows = tx.execute("SELECT id FROM api_key WHERE id = ANY(%s) AND revoked_at IS NULL", (list(key_ids),))
    return set(key_ids) - {row["id"] for row in rows}


@dataclass(slots=True)
class KeyRing:
    """The keys used in the last seconds, so that not every request asks the database; safe for several threads."""

    database: Database
    clock: Callable[[], float] = time.monotonic
    _known: dict[bytes, tuple[float, ApiKey]] = field(default_factory=dict)
    _renew_at: dict[bytes, float] = field(default_factory=dict)
    _note_at: dict[bytes, float] = field(default_factory=dict)

    def remembered(self, text: str) -> ApiKey | None:
        """Return the key if it was good a moment ago; sends no statement."""
        until, key = self._known.get(_digest(text), (0.0, None))
        return key if until > self.clock() else None

    def is_due(self, text: str) -> bool:
        """Return True, once, when a key is due for a look-up before it is forgotten."""
        digest = _digest(text)
        due = self._renew_at.get(digest, float("inf")) <= self.clock()
        return due and self._renew_at.pop(digest, None) is not None

    def renew(self, text: str) -> None:
        """Look a remembered key up once more; while the database is away, the key is forgotten in its time."""
        with suppress(*UNAVAILABLE):
            if self.find(text) is None:
                self._known.pop(_digest(text), None)
        self.note_use(text)

    def note_use(self, text: str) -> None:
        """Note in the database that a remembered key is in use, at most once in `NOTED_EVERY_S`."""
        digest, key = _digest(text), self.remembered(text)
        if key is None or self._note_at.get(digest, -math.inf) > self.clock():
            return
        self._note_at[digest] = self.clock() + NOTED_EVERY_S
        with suppress(*UNAVAILABLE):
            run_idempotent(self.database, lambda connection: note_use(connection, key.id))

    def find(self, text: str) -> ApiKey | None:
        """Return the key if it is good now, and remember it; asks the database."""
        began = self.clock()
        key = run_idempotent(self.database, lambda connection: find_key(connection, text))
        if key is not None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._renew_at.clear()
                self._note_at.clear()
            digest = _digest(text)
            self._known[digest] = (began + FRESH_FOR_S, key)
            self._renew_at[digest] = began + RENEW_AFTER_S
        return key


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _key(row: Mapping[str, Any]) -> ApiKey:
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    times = row["created_at"], row["revoked_at"], row.get("last_used_at")  # the last is new in 0.2
    return ApiKey(row["id"], row["name"], row["tenant"], scopes, *times)
