from __future__ import annotations

import os
import socket
import tomllib
from pathlib import Path

import pytest

from worker.config.profiles import load_profiles
from worker.local.ports import free_port
from worker.local.secret import remembered_secret
from worker.local.state import State, default_state


@pytest.fixture
def state(server_folder: Path, request: pytest.FixtureRequest) -> State:
    return State.at(server_folder / request.node.name)


def test_ports_are_those_of_last_time(state: State) -> None:
    first = state.ports({"api": 0, "flower": 0})
    assert len(set(first.values())) == 2
    assert state.ports({"api": 0, "flower": 0}) == first


def test_port_taken_meanwhile_is_replaced_and_remembered(state: State) -> None:
    first = state.ports({"api": 0, "flower": 0})
    said: list[str] = []
    with socket.create_server(("127.0.0.1", first["api"])):
        second = state.ports({"api": 0, "flower": 0}, said.append)
    assert second["api"] != first["api"]
    assert second["flower"] == first["flower"]
    [line] = said
    assert line.startswith(f"Port {first['api']} is taken by another program: api listens on {second['api']}")
    assert state.ports({"api": 0, "flower": 0}) == second


def test_port_wanted_counts_for_the_first_time_only(state: State) -> None:
    wanted, other = free_port(), free_port()
    assert state.ports({"api": wanted}) == {"api": wanted}
    assert state.ports({"api": other}) == {"api": wanted}


def test_stores_file_can_be_loaded_and_follows_the_emulator(state: State) -> None:
    secret = remembered_secret(state.emulator_key)
    state.write_stores(20_001)
    before = load_profiles(state.stores, {})
    assert before.stores["main"].secret_key.get_secret_value() == secret
    assert before.roots["files"].path == state.files
    state.write_stores(20_002)
    assert str(load_profiles(state.stores, {}).stores["main"].endpoint) == "http://127.0.0.1:20002"


def test_stores_file_is_its_owners_but_for_one_line(state: State) -> None:
    remembered_secret(state.emulator_key)
    state.write_stores(20_001)
    own = state.stores.read_text() + '\n[roots.mine]\npath = "/srv/mine"  # ours\n'
    state.stores.write_text(own)
    state.write_stores(20_002)
    assert state.stores.read_text() == own.replace("20001", "20002")


def test_endpoint_that_its_owner_changed_is_left_alone(state: State) -> None:
    state.stores.write_text('[stores.main]\nendpoint = "http://cos.example"\n')
    state.write_stores(20_001)
    assert tomllib.loads(state.stores.read_text())["stores"]["main"]["endpoint"] == "http://cos.example"


def test_folder_of_files_with_characters_of_toml(server_folder: Path) -> None:
    state = State.at(server_folder / 'with "quotes" and \\')
    remembered_secret(state.emulator_key)
    state.write_stores(20_001)
    assert load_profiles(state.stores, {}).roots["files"].path == state.files


def test_usual_folder() -> None:
    assert default_state({"XDG_STATE_HOME": "/x/state"}) == Path("/x/state/sliceway")
    assert default_state({"XDG_STATE_HOME": "/x/state", "SLICEWAY_STATE_DIR": "/y"}) == Path("/y")
    usual = Path("/var/lib/sliceway") if os.geteuid() == 0 else Path.home() / ".local/state/sliceway"
    assert default_state({}) == usual


def test_what_is_kept_is_closed_to_others(state: State) -> None:
    for folder in (state.logs, state.files, state.objects):
        assert folder.stat().st_mode & 0o777 == 0o700
