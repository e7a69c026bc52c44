"""Chooses the store and the root of a drill, and checks that another worker can take over."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from worker.doctor.examine import examine
from worker.doctor.findings import Finding, Level
from worker.drill import watch
from worker.errors import SettingsError, SlicewayError
from worker.jobs.api_keys import find_key
from worker.sources.file import usable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.profiles import RootProfile, StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Database

NOTICE_SLACK_S = 5.0
"""Time beyond `dead_after_s` within which another worker must run a dead worker's slice."""

_Profile = TypeVar("_Profile", "StoreProfile", "RootProfile")


class NothingProven(SlicewayError):
    """The drill killed no worker, so it has proven nothing."""

    code = "not_proven"
    advice = "Run it again; with very many workers give it a larger --size."


@dataclass(frozen=True, slots=True)
class Site:
    """The installation under test, and the drill's choices.

    Attributes:
        settings: the settings of the installation.
        store: the store of the drill's object.
        root: the root of the drill's file.
        size_bytes: size of that file.
        timeout_s: time limit of the whole drill.
    """

    settings: Settings
    store: StoreProfile
    root: RootProfile
    size_bytes: int
    timeout_s: float

    @property
    def limit_s(self) -> float:
        """Time after the kill within which another worker must run the slice: 15 s with the default settings."""
        return self.settings.timers.dead_after_s + NOTICE_SLACK_S

    @property
    def slice_bytes(self) -> int:
        """The protocol's smallest slice size: more slices raise the chance that the canary gets one."""
        return min(self.store.limits.slice_sizes)


def choose_store(settings: Settings, name: str | None) -> StoreProfile:
    """Return the store of this name; without a name, the only store.

    Raises:
        SettingsError: there is no such store, or no name and not exactly one store.
    """
    return _the_one("store", settings.profiles.stores, name)


def choose_root(settings: Settings, name: str | None) -> RootProfile:
    """Return the root of this name; without a name, the only root whose folder this user may write.

    Raises:
        SettingsError: the root is not writable, there is no such root, or no name and not exactly one root.
    """
    roots = settings.profiles.roots
    closed = {each: why for each, root in roots.items() if (why := _not_writable(root))}
    if name in closed or (closed and len(closed) == len(roots)):
        which = name if name in closed else next(iter(closed))
        raise SettingsError(
            f"root {which!r}: {roots[which].path} {closed[which]}",
            advice="Run the drill where a root is mounted and has files, as a user who may write to it.",
        )
    return _the_one("root", {each: root for each, root in roots.items() if each not in closed}, name)


def _not_writable(root: RootProfile) -> str | None:
    why = usable(root)
    return why or (None if os.access(root.path, os.W_OK | os.X_OK) else "cannot be written by this user")


def _the_one(what: str, there: Mapping[str, _Profile], name: str | None) -> _Profile:
    names = ", ".join(there) or "none"
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name is None:
        raise SettingsError(
            f"there is not one {what} to choose ({what}s that can be used here: {names})",
            advice=f"Name one with --{what}.",
        )
    if name not in there:
        raise SettingsError(f"there is no {what} {name!r}", advice=f"There are: {names}.")
    return there[name]


def folder_of(site: Site, database: Database) -> str:
    """Return the key prefix of the API key's tenant; "" for an unknown API key, which the API will refuse."""
    given = site.settings.api_key
    with database.connection() as tx:
        key = find_key(tx, given.get_secret_value()) if given is not None else None
    return "" if key is None else site.store.key_prefix(key.tenant)


def ready(site: Site, database: Database) -> Finding:
    """Check that the drill can begin, and return the step's finding.

    Raises:
        NothingProven: the doctor finds a failed server or store, or no other worker can take over.
    """
    needed = {"database", "database writes", "migrations", "broker", "broker memory", "broker consumers"}
    needed.add(f"store {site.store.name}")
    for finding in examine(site.settings):
        if finding.check in needed and finding.level is Level.FAILED:
            raise NothingProven(f"no drill was begun: {finding.check}: {finding.text}", advice=finding.advice)
    with database.connection() as tx:
        others = watch.others(tx, site.root.name, site.settings.timers.dead_after_s)
    if not others:
        raise NothingProven(
            f"no drill was begun: no worker process is alive that reads from root {site.root.name!r},"
            " so none could take over",
            advice="Start one: `sliceway worker`.",
        )
    workers = "1 worker process" if others == 1 else f"{others} worker processes"
    return Finding("ready", Level.OK, f"store {site.store.name}, root {site.root.name}; {workers} can take over")
