"""`sliceway doctor`: runs a check for everything that an installation needs, and returns the findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.config.celery_parts import STOCK_ADVICE, why_stock
from worker.config.credentials import SHORT, SHORT_ADVICE
from worker.config.profiles import Profiles
from worker.doctor import servers
from worker.doctor.database import database
from worker.doctor.findings import Finding, Level, run
from worker.errors import SlicewayError
from worker.telemetry.redact import short_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings


def examine(settings: Settings) -> list[Finding]:
    """Run every check at once. A failed check does not stop the others."""
    found = [Finding("settings", Level.OK, "every variable is known and right")]
    try:
        profiles = settings.profiles
    except SlicewayError as error:
        found.append(Finding("stores file", Level.FAILED, error.message, error.advice))
        profiles, stores = Profiles(stores={}, roots={}), []
    else:
        stores = [*servers.store_checks(list(profiles.stores.values())), ("roots", lambda: servers.roots(profiles))]
    if short := short_settings():
        found.append(Finding("secrets", Level.NOTE, f"{', '.join(short)}: {SHORT}", SHORT_ADVICE))
    if why := why_stock(settings):
        found.append(Finding("celery", Level.NOTE, f"the stock parts are used: {why}", STOCK_ADVICE))
    return found + run(
        [
            ("database", lambda: database(settings, profiles)),
            ("broker", lambda: servers.broker(settings.broker)),
            ("state folder", lambda: servers.state_folder(settings)),
            *stores,
        ]
    )


def examine_stores(profiles: Sequence[StoreProfile]) -> list[Finding]:
    """Run the checks of these stores at once."""
    return run(servers.store_checks(profiles))
