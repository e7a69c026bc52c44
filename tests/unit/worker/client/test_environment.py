"""The environment of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from worker.client.environment import environment
from worker.local.state import State, Up
from worker.local.supervisor import Supervisor
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(server_folder: Path) -> Path:
    """A state folder as `sliceway up` writes it."""
    tmp_path = server_folder / uuid4().hex
    tmp_path.mkdir(mode=0o711)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "valkey").mkdir()
    (tmp_path / "postgres/password").write_text("fake-secret-1")
    (tmp_path / "valkey/password").write_text("fake-secret-2")
    (tmp_path / "api-key").write_text("slw_fake-secret\n")
    (tmp_path / "ports.json").write_text(json.dumps({"postgres": 1, "valkey": 2, "api": 3}))
    return tmp_path


def test_the_installation_on_this_machine_is_found(state: Path) -> None:
    found = environment({"SLICEWAY_STATE_DIR": str(state), "HOME": "/nowhere"})
    assert found["SLICEWAY_API_URL"] == "http://127.0.0.1:3"
    assert found["SLICEWAY_API_KEY"] == "slw_fake-secret"
    assert found["SLICEWAY_DATABASE_URL"] == "postgresql+psycopg://sliceway:fake-secret-1@127.0.0.1:1/sliceway"
    assert found["SLICEWAY_BROKER_URL"].endswith("@127.0.0.1:2/0")
    assert found["SLICEWAY_STORES_FILE"] == str(state / "stores.toml")


@pytest.mark.parametrize("name", ["SLICEWAY_DATABASE_URL", "SLICEWAY_API_URL", "SLICEWAY_API_KEY"])
def test_a_variable_that_names_another_installation_excludes_the_local_one(state: Path, name: str) -> None:
    given = {"SLICEWAY_STATE_DIR": str(state), name: "x"}
    assert environment(given) == given


OURS = {"SLICEWAY_API_URL": "http://127.0.0.1:3", "SLICEWAY_API_KEY": "slw_fake-secret"}


@pytest.mark.parametrize(
    "set_elsewhere",
    [
        {"SLICEWAY_API_PORT": "1", "SLICEWAY_BROKER_URL": "redis://other/0", "SLICEWAY_STORES_FILE": "/x"},
        {"SLICEWAY_API_URL": OURS["SLICEWAY_API_URL"]},
        {"SLICEWAY_API_KEY": ""},
    ],
)
def test_its_ports_and_key_are_followed_whatever_else_is_set(state: Path, set_elsewhere: dict[str, str]) -> None:
    found = environment({"SLICEWAY_STATE_DIR": str(state)} | set_elsewhere)
    assert {name: found[name] for name in OURS} == OURS
    assert found["SLICEWAY_API_PORT"] == "3"
    assert found["SLICEWAY_BROKER_URL"].endswith("@127.0.0.1:2/0")
    assert found["SLICEWAY_STORES_FILE"] == str(state / "stores.toml")


def test_an_external_database_that_it_uses_is_no_other_installation(state: Path) -> None:
    url = "postgresql://someone:fake-secret-3@db.example/media"
    given = {"SLICEWAY_STATE_DIR": str(state), "SLICEWAY_DATABASE_URL": url, "SLICEWAY_BROKER_URL": "redis://b/0"}
    assert environment(given) == given
    used = Up("http://127.0.0.1:4", 4, "/stores.toml", "postgresql://db.example/media", "redis://b")
    State(state).write_up(used)
    found = environment(given)
    assert (found["SLICEWAY_API_URL"], found["SLICEWAY_API_KEY"]) == ("http://127.0.0.1:4", "slw_fake-secret")
    assert (found["SLICEWAY_DATABASE_URL"], found["SLICEWAY_BROKER_URL"]) == (url, "redis://b/0")
    found = environment({"SLICEWAY_STATE_DIR": str(state)})
    assert "SLICEWAY_DATABASE_URL" not in found
    assert "fake-secret-3" not in "".join(file.read_text() for file in state.glob("*.json"))


def test_an_own_key_is_used_with_the_local_installation(state: Path) -> None:
    given = {"SLICEWAY_STATE_DIR": str(state), "SLICEWAY_API_KEY": "slw_fake-own"}
    with Supervisor(state):
        found = environment(given)
    assert (found["SLICEWAY_API_URL"], found["SLICEWAY_API_KEY"]) == ("http://127.0.0.1:3", "slw_fake-own")
    assert environment(given) == given


def test_without_a_local_installation_the_environment_is_unchanged(tmp_path: Path) -> None:
    given = {"SLICEWAY_STATE_DIR": str(tmp_path / "none")}
    assert environment(given) == given
    assert not (tmp_path / "none").exists()


def test_an_error_becomes_one_line_without_secrets() -> None:
    assert first_line(ValueError("\n no redis://:fake-secret@h/0 \nmore")) == "no redis://:***@h/0"
    assert first_line(ValueError()) == "ValueError"


NO_ACCOUNT = """
import os, sys
import worker.local.up
from worker.cli.main import run
from worker.client.environment import environment
os.environ.pop("HOME", None)
os.setuid(54321)  # a user without an account
assert "SLICEWAY_DATABASE_URL" not in environment({})
sys.exit(run(["up"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a user that does not exist")
def test_a_user_without_a_home_has_no_local_installation_and_gets_advice() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLICEWAY_", "XDG_"))}
    said = subprocess.run([sys.executable, "-c", NO_ACCOUNT], env=clean, capture_output=True, text=True, check=False)
    assert said.stderr == (
        "sliceway: the user with the number 54321 has no home folder, and no other is named."
        " Set SLICEWAY_STATE_DIR or HOME.\n"
    )
    assert said.returncode == 1
