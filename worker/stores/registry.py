"""Finds the driver of a store's profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from worker.errors import StoreUnusable
from worker.http.errors import ENDPOINT, PROXY
from worker.stores.cos_json.driver import CosJsonStore
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.stores.base import StoreDriver


def open_store(profile: StoreProfile) -> StoreDriver:
    """Return the driver of the profile's protocol; it sends nothing yet.

    Raises:
        StoreUnusable: the profile's `ca_file`, `endpoint` or `proxy` cannot be used; its jobs wait.
    """
    try:
        return CosJsonStore(profile)
    except (ValueError, LookupError, ImportError, httpx.InvalidURL) as error:
        code_and_advice = ENDPOINT if profile.proxy is None else PROXY
        message = f"[stores.{profile.name}] endpoint or proxy cannot be used: {redact(str(error))}"
        raise StoreUnusable(message, **code_and_advice) from error
