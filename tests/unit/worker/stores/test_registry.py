from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from worker.errors import SettingsError
from worker.settings import StoreProfile
from worker.stores.cos_json import CosJsonStore
from worker.stores.registry import open_store


def profile(**changes: Any) -> StoreProfile:
    values: dict[str, Any] = {
        "name": "main",
        "protocol": "cos-json",
        "endpoint": "https://store.test",
        "appid": "10055004",
        "bucket": "accesslog",
        "secret_id": SecretStr("AKIDfakesecretid"),
        "secret_key": SecretStr("fake-secret-key"),
    }
    return StoreProfile(**{**values, **changes})


def test_the_protocol_of_the_profile_chooses_the_driver() -> None:
    driver = open_store(profile())
    assert isinstance(driver, CosJsonStore)
    driver.close()


def test_a_profile_that_cannot_be_used_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\[stores.main\]"):
        open_store(profile(ca_file=Path("/nonexistent/ca.pem")))
