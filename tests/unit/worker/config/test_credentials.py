"""The secrets that are found in settings, also in invalid ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.leaks import leaked
from worker.config.credentials import secrets_in
from worker.config.profiles import load_profiles
from worker.config.settings import load_settings
from worker.errors import SettingsError
from worker.telemetry import redact as redact_module
from worker.telemetry.redact import redact
from worker.telemetry.secret_matcher import SecretMatcher

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "fAk3-0nly/Wq8+Zr5Xe2 Tv7Lm4"  # a fake, with characters that a URL has to encode
RAW = SECRET.replace(" ", "%20")
VALID = {
    "SLICEWAY_DATABASE_URL": "postgresql+psycopg://me@db/sliceway",
    "SLICEWAY_BROKER_URL": "redis://cache:6379/0",
}


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without secrets, and restore those of other tests."""
    monkeypatch.setattr(redact_module, "_known", SecretMatcher())
    monkeypatch.setattr(redact_module, "_short", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql+psycopg://me:{}@db/sliceway"),
        ("database_url", "postgresql://me@db/sliceway?sslmode=require&password={}"),
        ("database_direct_url", "postgres://me:{}@db"),
        ("broker_url", "redis://:{}@cache:6379/0"),
        ("broker_url", "redis://:{}:6379/0"),
        ("broker_url", "redis://:x@a;redis://:{}@b"),
        ("broker_url", "rediss://{}@cache"),
        ("broker_url", "cache:{}@cache"),
        ("api_url", "https://me:{}@api"),
        ("broker_url", "redis+socket://:{}@/run/redis.sock"),
        ("broker_url", "sentinel://:{}@a;sentinel://b"),
        ("broker_sentinel_password", "{}"),
        ("api_key", "{}"),
        ("flower_basic_auth", "me:{}"),
        ("flower_basic_auth", "{}"),
        ("secret_id", "{}"),
        ("secret_key", "{}"),
        ("proxy", "me:{}@proxy:3128"),
        ("proxy", "http://me:{}@proxy:port"),
        ("endpoint", "https://me:{}@store"),
        ("new", {"deep": ["https://me:{}@anywhere"]}),
    ],
)
def test_a_secret_is_found_in_every_setting_that_may_have_one(name: str, value: object) -> None:
    def filled(value: object) -> object:
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        return [filled(part) for part in value] if isinstance(value, list) else str(value).format(RAW)

    found = list(secrets_in(name, filled(value)))
    whole = name in {"api_key", "broker_sentinel_password", "flower_basic_auth", "secret_id", "secret_key"}
    assert any((RAW if whole else SECRET) in each for each in found)
    assert any(RAW in each for each in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql+psycopg://sliceway_reader_role@db/sliceway"),
        ("broker_url", "redis://cache:6379/0"),
        ("broker_url", "redis://default@cache"),
        ("api_url", "http://[::1]:8080"),
        ("endpoint", "https://store:8443/a@b"),
        ("stores_file", "/etc/sliceway/stores.toml"),
        ("log_level", "info"),
        ("api_port", 8080),
        ("proxy", None),
    ],
)
def test_what_is_no_secret_is_not_hidden(name: str, value: object) -> None:
    assert list(secrets_in(name, value)) == [] or name == "endpoint"


@pytest.mark.parametrize(
    "wrong",
    [
        {"SLICEWAY_DATABASE_URL": f"redis://me:{RAW}@db", "SLICEWAY_LOG_LEVEL": RAW},
        {"SLICEWAY_BROKER_URL": f"redis://:{RAW}@cache:port", "SLICEWAY_API_PORT": f"redis://:{RAW}@cache"},
        {"SLICEWAY_TIME_SCALE": "2", "SLICEWAY_DATABASE_URL": f"postgresql://me:{RAW}@[db/x"},
    ],
)
def test_the_refusal_of_settings_shows_no_secret_of_them(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(VALID | wrong)
    assert leaked(SECRET, str(caught.value)) == []


@pytest.mark.parametrize(
    "lines",
    [
        f'secret_key_env = "{SECRET}"',
        f'secret_key = "{SECRET}"\nsecret_key_env = "MINE"',
        f'secret_key = "{SECRET}"\nproxy = 7',
        f'secret_key = "x"\nproxy = "me:{RAW}@host:3128"\nbucket = 7',
    ],
)
def test_the_refusal_of_a_store_shows_no_secret_of_it(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "stores.toml"
    file.write_text(f'[stores.main]\nsecret_id = "fake-id"\n{lines}\n')
    with pytest.raises(SettingsError) as caught:
        load_profiles(file, {})
    assert leaked(SECRET, str(caught.value)) == []


def test_loading_settings_and_profiles_hides_their_secrets(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET[::-1]}\n")
    file = tmp_path / "stores.toml"
    file.write_text(
        '[stores.main]\nprotocol = "cos-json"\nendpoint = "https://store"\nappid = "1"\nbucket = "b"\n'
        'secret_id_env = "MINE"\nsecret_key_file = "key"\n'
    )
    settings = load_settings({**VALID, "SLICEWAY_FLOWER_BASIC_AUTH": f"me:{SECRET}", "SLICEWAY_STORES_FILE": str(file)})
    load_profiles(file, os.environ | {"MINE": SECRET.swapcase()})
    assert settings.flower_basic_auth is not None
    for secret in (SECRET, SECRET[::-1], SECRET.swapcase()):
        assert redact(f"<{secret[2:20]}>") == "<***>"
