"""How a reload of the stores files is asked for, and with which profiles each process works.

`sliceway stores reload` raises the generation in the one row of `stores_reload`. Each process reads it with its
heartbeat (workers) or with its row in `api_process` (APIs), reads its own stores file again, and says in its row which
generation it has done and which version of the profiles it works with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from worker.jobs.leases import json_or_null
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from uuid import UUID

    from worker.config.live_profiles import LiveProfiles, Reloader
    from worker.db.pool import Connection

FORGET_API_S = 300.0
"""Silence after which an API process is taken for gone: nothing watches it, unlike a worker."""


class ProfilesDocument(TypedDict):
    """What a process says of its stores file."""

    version: str
    """See `LiveProfiles.version`."""
    generation: int
    """The last reload that it has done."""
    error: str | None
    """Why it has refused its file; it then works with the profiles from before."""


class ReloadRequest(NamedTuple):
    """The latest reload that was asked for.

    Attributes:
        generation: 0 if none ever was.
        key: of the installation, for versions.
    """

    generation: int
    key: str | None


class StoresInUse(NamedTuple):
    """A process that runs, or ran a moment ago."""

    role: str
    name: str
    stores: ProfilesDocument | None
    """None of a process that does not say: one of release 0.1, or one that is about to start."""
    silent_s: float

    @property
    def generation(self) -> int:
        """The last reload that it has done; -1 if it does not say."""
        return -1 if self.stores is None else self.stores["generation"]

    def is_current(self, generation: int, version: str | None) -> bool:
        """Return whether the process has done this reload, and works with this version (None: any)."""
        stores = self.stores
        if stores is None or stores["error"] or stores["generation"] < generation:
            return False
        return version in (None, stores["version"])

    def state(self, generation: int, version: str | None) -> str:
        """Return in words whether `is_current`, and if not, why."""
        if self.stores is None:
            return "does not say: it is about to start, or of a release that reads the file at its start only"
        if self.stores["error"]:
            return f"has refused its file: {self.stores['error']}"
        if self.generation < generation:
            return f"has not read its file yet, last heard of {self.silent_s:.0f} s ago"
        return "works with it" if self.is_current(generation, version) else "its file or a secret differs"


NOTHING_ASKED = ReloadRequest(0, None)


def document(live: LiveProfiles, reloader: Reloader, key: str | None) -> ProfilesDocument | None:
    """Return what the process says of its stores file; None until it has the key."""
    if key is None:
        return None
    return {"version": live.version(key), "generation": reloader.generation, "error": reloader.error}


def latest(tx: Connection) -> tuple[ReloadRequest, str | None]:
    """Return the latest reload that was asked for, and the version of the file that it was asked for."""
    row = tx.execute("SELECT generation, key, version FROM stores_reload").fetchone()
    return (NOTHING_ASKED, None) if row is None else (ReloadRequest(row["generation"], row["key"]), row["version"])


def ask_reload(tx: Connection, version: str) -> int:
    """Ask every process to read its file again, to work with this version then; return the generation."""
    row = tx.execute(sql("ask_reload"), {"version": version}).fetchone()
    assert row is not None
    return int(row["generation"])


def api_seen(tx: Connection, process: UUID, name: str, profiles: ProfilesDocument | None) -> ReloadRequest:
    """Say that an API process runs, and with which profiles; return the latest reload that was asked for."""
    row = tx.execute(sql("api_seen"), {"id": process, "name": name, "profiles": json_or_null(profiles)}).fetchone()
    assert row is not None
    return ReloadRequest(row["generation"] or 0, row["key"])


def api_gone(tx: Connection, process: UUID) -> None:
    """Say that an API process has stopped."""
    tx.execute(sql("api_gone"), {"id": process})


def stores_in_use(tx: Connection) -> list[StoresInUse]:
    """Return the processes of workers and APIs, and with which profiles each works."""
    return [StoresInUse(**row) for row in tx.execute(sql("stores_in_use"), {"forget_s": FORGET_API_S})]
