"""What the command line works with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from worker.surroundings import environment, first_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(server_folder: Path) -> Path:
    """A state folder as `sliceway up` leaves it."""
    tmp_path = server_folder / uuid4().hex
    tmp_path.mkdir(mode=0o711)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "valkey").mkdir()
    (tmp_path / "postgres/password").write_text("fake-secret-1")
    (tmp_path / "valkey/password").write_text("fake-secret-2")
    (tmp_path / "api-key").write_text("slw_fake-secret\n")
    (tmp_path / "ports.json").write_text(json.dumps({"postgres": 1, "valkey": 2, "api": 3}))
    return tmp_path


def test_what_runs_on_this_machine_is_found(state: Path) -> None:
    found = environment({"SLICEWAY_STATE_DIR": str(state), "HOME": "/nowhere"})
    assert found["SLICEWAY_API_URL"] == "http://127.0.0.1:3"
    assert found["SLICEWAY_API_KEY"] == "slw_fake-secret"
    assert found["SLICEWAY_DATABASE_URL"] == "postgresql+psycopg://sliceway:fake-secret-1@127.0.0.1:1/sliceway"
    assert found["SLICEWAY_BROKER_URL"].endswith("@127.0.0.1:2/0")
    assert found["SLICEWAY_STORES_FILE"] == str(state / "stores.toml")


@pytest.mark.parametrize("name", ["SLICEWAY_DATABASE_URL", "SLICEWAY_API_URL", "SLICEWAY_API_KEY"])
def test_who_names_another_installation_means_that_one_alone(state: Path, name: str) -> None:
    given = {"SLICEWAY_STATE_DIR": str(state), name: "x"}
    assert environment(given) == given


def test_where_nothing_runs_there_is_the_environment(tmp_path: Path) -> None:
    given = {"SLICEWAY_STATE_DIR": str(tmp_path / "none")}
    assert environment(given) == given
    assert not (tmp_path / "none").exists()


def test_an_error_is_told_in_one_line_without_secrets() -> None:
    assert first_line(ValueError("\n no redis://:fake-secret@h/0 \nmore")) == "no redis://:***@h/0"
    assert first_line(ValueError()) == "ValueError"
