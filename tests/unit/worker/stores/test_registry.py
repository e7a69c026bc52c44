"""The driver of a profile, and the error of a profile that cannot be used."""

from __future__ import annotations

import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.leaks import leaked
from worker.config.profiles import StoreProfile
from worker.errors import StoreUnusable
from worker.jobs.retry import Again, History, decide
from worker.stores.cos_json.driver import CosJsonStore
from worker.stores.registry import open_store
from worker.urls import Endpoint, ProxyUrl, Secret

NEVER_FAILED = History(0, None, None, 0, timedelta(days=1), timedelta(days=7))


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


def test_the_protocol_of_the_profile_selects_the_driver() -> None:
    driver = open_store(profile())
    assert isinstance(driver, CosJsonStore)
    driver.close()


SECRET = "fake/pr0xy-Pa55Word+Zk3W"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ca_file": Path("/nonexistent/ca.pem")}, "tls_unusable"),
        ({"ca_file": Path(__file__)}, "tls_unusable"),
        ({"ca_file": Path(__file__).parent}, "tls_unusable"),
        ({"proxy": ProxyUrl("http", "no-name-" + "é" * 70, user="me", password=Secret(SECRET))}, "proxy_unusable"),
        ({"endpoint": Endpoint("https", "no-name-" + "é" * 70)}, "store_unusable"),
    ],
)
def test_a_profile_that_cannot_be_used_is_named_and_its_jobs_wait(wrong: dict[str, Any], code: str) -> None:
    """Such a profile opens the breaker and its jobs wait; no text contains a secret."""
    used = profile().model_copy(update=wrong)  # not validated: the file may change after the settings were read
    with pytest.raises(StoreUnusable, match=r"^\[stores.main\] (ca_file|endpoint or proxy) ") as caught:
        open_store(used)
    error = caught.value
    assert error.code == code
    decision = decide(error, NEVER_FAILED)
    assert isinstance(decision, Again)
    assert (decision.attempt, decision.error is not None and decision.error["code"]) == (False, code)
    text = "".join(traceback.format_exception(error))
    assert leaked(SECRET, text) == []
