"""Checks the CA files that store profiles name, before a driver needs one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from worker.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from worker.config.profiles import Profiles


def check_authorities(profiles: Profiles) -> None:
    """Check that each store's `ca_file` holds certificates. Workers need it at their start; the API does not.

    Raises:
        SettingsError: a file cannot be used; the message names it.
    """
    for profile in profiles.stores.values():
        if (why := unusable_authorities(profile.ca_file)) is not None:
            raise SettingsError(f"[stores.{profile.name}] ca_file {profile.ca_file} {why}")


def unusable_authorities(ca_file: Path | None) -> str | None:
    """Say why a CA file cannot be used; None if it can, or if there is none."""
    if ca_file is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except ssl.SSLError:  # a subclass of OSError
        return "holds no certificate in PEM"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None
