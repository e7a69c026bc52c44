"""From a store's profile to its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import SettingsError
from worker.stores.cos_json import CosJsonStore

if TYPE_CHECKING:
    from worker.settings import StoreProfile
    from worker.stores.base import StoreDriver


def open_store(profile: StoreProfile) -> StoreDriver:
    """Return the driver that speaks the profile's protocol; sends nothing yet.

    Raises:
        SettingsError: its `ca_file` or `proxy` cannot be used.
    """
    try:
        return CosJsonStore(profile)
    except (OSError, ValueError) as error:
        raise SettingsError(f"[stores.{profile.name}] ca_file or proxy cannot be used: {error}") from error
