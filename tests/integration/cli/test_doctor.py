"""The doctor runs every check, whatever the others find, and says what to do."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.stores_file import write_stores
from worker.db.migrate import migrate
from worker.local.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.config.profiles import StoreProfile


def found(sliceway: Any, code: int) -> dict[str, tuple[str, str]]:
    assert sliceway("doctor --json") == code, sliceway.out
    return {each["check"]: (each["level"], f"{each['text']}; {each['advice']}") for each in json.loads(sliceway.out)}


@pytest.fixture
def healthy(
    installation: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    broker_url: str,
    store_profile: StoreProfile,
) -> Any:
    """An installation without a fault, except that no worker runs."""
    (tmp_path / "state").mkdir()
    store = {
        **{name: str(getattr(store_profile, name)) for name in ("protocol", "endpoint", "appid", "bucket")},
        **{name: getattr(store_profile, name).get_secret_value() for name in ("secret_id", "secret_key")},
    }
    write_stores(tmp_path / "stores.toml", {"main": store}, {"media": {"path": tmp_path / "media"}})
    monkeypatch.setenv("SLICEWAY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SLICEWAY_BROKER_URL", broker_url)
    monkeypatch.setenv("SLICEWAY_DATABASE_DIRECT_URL", os.environ["SLICEWAY_DATABASE_URL"])
    return installation


@pytest.fixture
def durable_url(server_folder: Path) -> Iterator[str]:
    """A migrated database on a durable server. The other tests' server is not durable, for speed."""
    server = EmbeddedPostgres(server_folder / "durable")
    server.start()
    migrate(server.url)
    yield server.url
    server.stop("immediate")


def test_a_healthy_installation_passes(healthy: Any, monkeypatch: pytest.MonkeyPatch, durable_url: str) -> None:
    for name in ("SLICEWAY_DATABASE_URL", "SLICEWAY_DATABASE_DIRECT_URL"):
        monkeypatch.setenv(name, durable_url)
    assert found(healthy, 0)["database session"][0] == "note"  # jit costs time only
    assert healthy("migrate") == 0
    found_by_check = found(healthy, 0)
    assert found_by_check.pop("workers")[0] == "note"
    assert {level for level, _ in found_by_check.values()} == {"ok"}
    assert {"settings", "database", "database session", "database, directly", "migrations"} <= set(found_by_check)
    assert {"broker", "broker memory", "state folder", "store main", "clock against store main", "root media"} <= set(
        found_by_check
    )
    assert healthy("doctor") == 0
    assert healthy("stores check") == 0
    assert healthy("stores check main") == 0
    healthy.fails("stores check other", 2, "no store 'other'", "main")


def test_every_check_runs_even_if_all_fail(installation: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "media/a.bin").unlink()  # an empty root, as of a volume that is not mounted
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", "postgresql+psycopg://sliceway:fake-secret-1@127.0.0.1:1/sliceway")
    monkeypatch.setenv("SLICEWAY_STATE_DIR", str(tmp_path / "none"))
    found_by_check = found(installation, 1)
    failed = {check for check, (level, _) in found_by_check.items() if level == "failed"}
    assert failed == {"database", "broker", "state folder", "store main", "root media"}
    assert "fake-secret-1" not in installation.out
    assert all(text.partition("; ")[2] for check, (level, text) in found_by_check.items() if level == "failed")
    assert installation("doctor") == 1
    assert "5 of 6 checks failed" in installation.err
    assert installation("stores check") == 1


def test_a_database_without_tables_lacks_migrations(
    healthy: Any, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", empty_database_url)
    level, text = found(healthy, 1)["migrations"]
    assert (level, "sliceway migrate" in text) == ("failed", True)


def test_a_broker_that_evicts_is_unsafe(healthy: Any, broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("timeout", "5")
        try:
            found_by_check = found(healthy, 1)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("timeout", "0")
    assert found_by_check["broker memory"][0] == "failed"
    assert "noeviction" in found_by_check["broker memory"][1]
    assert found_by_check["broker timeout"][0] == "note"


def test_wrong_credentials_of_a_store_are_found(healthy: Any, tmp_path: Path) -> None:
    file = tmp_path / "stores.toml"
    file.write_text(file.read_text().replace("secret_key = ", 'secret_key = "fake-wrong-secret" # '))
    level, text = found(healthy, 1)["store main"]
    assert level == "failed"
    assert "fake-wrong-secret" not in text


@pytest.fixture
def silence() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers_does_not_delay_the_other_checks(
    healthy: Any, monkeypatch: pytest.MonkeyPatch, silence: int
) -> None:
    monkeypatch.setenv("SLICEWAY_BROKER_URL", f"redis://127.0.0.1:{silence}/0")
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", f"postgresql+psycopg://sliceway:x@127.0.0.1:{silence}/sliceway")
    found_by_check = found(healthy, 1)
    assert {check for check, (level, _) in found_by_check.items() if level == "failed"} == {"database", "broker"}
    assert found_by_check["store main"][0] == "ok"


def test_a_wrong_setting_or_stores_file_is_a_finding(
    healthy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stores.toml").write_text("[stores.main]\n")
    found_by_check = found(healthy, 1)
    assert (found_by_check["stores file"][0], found_by_check["database"][0]) == ("failed", "ok")
    monkeypatch.setenv("SLICEWAY_API_PORT", "many")
    level, text = found(healthy, 1)["settings"]
    assert (level, "SLICEWAY_API_PORT" in text) == ("failed", True)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read: No such file"), ("none", "no certificate in PEM")]
)
def test_a_file_of_authorities_that_cannot_be_used_is_named_at_start_and_by_the_doctor(
    healthy: Any, tmp_path: Path, content: str | None, why: str
) -> None:
    authorities, file = tmp_path / "authorities.pem", tmp_path / "stores.toml"
    if content is not None:
        authorities.write_text(content)
    file.write_text(file.read_text().replace("[roots.media]", f'ca_file = "{authorities}"\n[roots.media]'))
    level, text = found(healthy, 1)["store main"]
    assert (level, str(authorities) in text, why in text) == ("failed", True, True)
    healthy.fails("worker", 2, "[stores.main] ca_file", why)
    assert len(healthy.err.splitlines()) == 1


def test_a_short_secret_is_noted(healthy: Any, tmp_path: Path) -> None:
    file = tmp_path / "stores.toml"
    file.write_text(file.read_text().replace("secret_id = ", 'secret_id = "fAk3iD" # '))
    level, text = found(healthy, 1)["secrets"]
    assert (level, "[stores.main] secret_id" in text) == ("note", True)
    assert "fAk3iD" not in healthy.out
