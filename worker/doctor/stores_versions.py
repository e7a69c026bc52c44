"""Checks that all processes work with the stores file of this machine, and names those that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.doctor.findings import Finding, Level
from worker.errors import SettingsError
from worker.jobs.stores_reload import latest, stores_in_use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.stores_reload import StoresInUse

NAMED_MAX = 5
_CHECK = "stores file at the processes"


def stores_versions(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Compare what the processes say of their stores files with the latest reload, and with the file here."""
    request, _ = latest(connection)
    found = [each for each in stores_in_use(connection) if each.stores is not None or request.generation > 0]
    if not found:
        return
    behind = [each for each in found if not each.is_current(request.generation, None)]
    if behind:
        said = [f"{each.role} {each.name} {each.state(request.generation, None)}" for each in behind]
        advice = "Correct the file of one that has refused it; restart one that stays silent."
        yield Finding(_CHECK, Level.FAILED, "; ".join(_shortened(said)), advice)
    try:
        here = settings.live_profiles.version(request.key)
    except SettingsError:
        return  # another line says so
    others = [each for each in found if each not in behind and not each.is_current(request.generation, here)]
    if others:
        text = f"{', '.join(_shortened(_names(others)))} with another version than the file here, {here}"
        advice = "Run `sliceway stores reload` if the file here is right; give all machines the same file and secrets."
        yield Finding(_CHECK, Level.NOTE, text, advice)
    elif not behind:
        count = f"{len(found)} {'process' if len(found) == 1 else 'processes'}"
        yield Finding(_CHECK, Level.OK, f"{count} with version {here}, as here")


def _names(processes: list[StoresInUse]) -> list[str]:
    return [f"{each.role} {each.name}" for each in processes]


def _shortened(texts: list[str]) -> list[str]:
    more = len(texts) - NAMED_MAX
    return texts if more <= 0 else [*texts[:NAMED_MAX], f"{more} more"]
