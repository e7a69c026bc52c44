"""What a reload of the stores file keeps, what it replaces, and what a version of it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.store import profile
from tests.support.stores_file import write_stores
from worker.config.live_profiles import LiveCaps, LiveProfiles, Reloader
from worker.errors import SettingsError
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from pathlib import Path

    from worker.config.profiles import Profiles

URL = "http://127.0.0.1:1"
ROOTS = {"media": {"path": "/srv/media"}}


class File:
    """A stores file, and the process that has read it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stores.toml"
        self.environ = {"KEY_OF_B": "fake-secret-of-b"}
        self.tables: dict[str, dict[str, Any]] = {"a": profile(URL), "b": self._by_variable()}
        self.write()
        self.live = LiveProfiles(self.path, self.environ)

    @staticmethod
    def _by_variable() -> dict[str, Any]:
        table = {**profile(URL), "secret_key_env": "KEY_OF_B"}
        del table["secret_key"]
        return table

    def write(self) -> None:
        """Write the tables as they are now."""
        write_stores(self.path, self.tables, ROOTS)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def test_an_unchanged_file_changes_nothing(file: File) -> None:
    before = file.live.profiles
    file.write()
    assert file.live.reload() is None
    assert file.live.profiles is before


def test_the_profile_of_an_unchanged_store_stays_the_same_object(file: File) -> None:
    before = file.live.profiles
    file.tables["a"]["max_in_flight"] = 3
    file.tables["c"] = profile(URL)
    file.write()
    caps = LiveCaps(file.live)
    assert file.live.reload() == {"a", "c"}
    assert file.live.profiles.stores["b"] is before.stores["b"]
    assert file.live.profiles.stores["a"] is not before.stores["a"]
    assert dict(caps) == {"a": 3, "b": 64, "c": 64}
    assert list(file.live.profiles.places) == ["a", "b", "c"]
    del file.tables["b"]
    file.write()
    assert file.live.reload() == {"b"}
    assert list(caps) == ["a", "c"]


def test_a_changed_secret_of_a_variable_is_seen_and_hidden(file: File) -> None:
    file.environ["KEY_OF_B"] = "another-fake-secret-of-b"
    assert file.live.reload() == {"b"}
    assert file.live.profiles.stores["b"].secret_key.get_secret_value() == "another-fake-secret-of-b"
    assert "another-fake" not in redact("it is another-fake-secret-of-b")


def test_other_certificates_under_the_same_name_are_a_change(file: File, tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    file.tables["a"]["ca_file"] = authorities
    file.write()
    assert file.live.reload() == {"a"}
    authorities.write_text("one")
    assert file.live.reload() == {"a"}
    assert file.live.reload() is None
    authorities.write_text("two")
    assert file.live.reload() == {"a"}


@pytest.mark.parametrize("text", ["[stores.a", "[stores.a]\nprotocol = 'cos-json'\n", "[other.a]\n"])
def test_a_wrong_file_leaves_everything_as_it_was(file: File, text: str) -> None:
    before, version = file.live.profiles, file.live.version("key")
    reloader = Reloader(file.live)
    file.path.write_text(text)
    reloader.ask()
    assert reloader.look() is None
    assert str(file.path) in (reloader.error or "")
    assert file.live.profiles is before
    assert file.live.version("key") == version
    file.write()
    assert reloader.look() is None
    assert reloader.error is not None  # nothing has asked for another reading
    reloader.ask()
    reloader.look()
    assert reloader.error is None


def test_profiles_that_the_process_cannot_use_are_refused(file: File) -> None:
    def refuse(profiles: Profiles) -> None:
        if "c" in profiles.stores:
            raise SettingsError("c cannot be used")

    before = file.live.profiles
    file.tables["c"] = profile(URL)
    file.write()
    with pytest.raises(SettingsError, match="c cannot"):
        file.live.reload(refuse)
    assert file.live.profiles is before


def test_each_generation_is_done_once_also_the_one_from_before_the_start(file: File) -> None:
    reloader = Reloader(file.live)
    file.tables["a"]["max_in_flight"] = 3
    file.write()
    assert reloader.look(0) is None
    assert reloader.look(7) == {"a"}
    file.tables["a"]["max_in_flight"] = 4
    file.write()
    assert reloader.look(7) is None
    assert reloader.generation == 7
    assert reloader.look(8) == {"a"}


def test_a_version_is_of_the_content_and_shows_no_secret(file: File, tmp_path: Path) -> None:
    version = file.live.version("key")
    assert version == file.live.version("key")
    public, _, of_secrets = version.partition("-")
    assert (len(public), len(of_secrets)) == (8, 4)
    assert file.live.version(None) == public
    assert file.live.version("another key").partition("-")[0] == public
    # the same content, wherever the secret comes from and in whatever order
    (tmp_path / "b.key").write_text("fake-secret-of-b\n")
    del file.tables["b"]["secret_key_env"]
    file.tables = {"b": {**file.tables["b"], "secret_key_file": "b.key"}, "a": file.tables["a"]}
    file.write()
    assert LiveProfiles(file.path, {}).version("key") == version


def test_a_rotated_secret_changes_the_second_part_of_the_version_alone(file: File) -> None:
    seen = set()
    for number in range(64):
        file.environ["KEY_OF_B"] = f"fake-secret-{number}-of-b"
        file.live.reload()
        public, _, of_secrets = file.live.version("key").partition("-")
        assert public == file.live.version(None)
        seen.add(of_secrets)
    assert len(seen) > 50


def test_the_password_of_a_proxy_is_no_part_of_what_is_public(file: File) -> None:
    versions = []
    for password in ("fake-one", "fake-two"):
        file.tables["a"]["proxy"] = f"http://me:{password}@127.0.0.1:3"
        file.write()
        file.live.reload()
        versions.append(file.live.version("key").split("-"))
    assert versions[0][0] == versions[1][0]
    assert versions[0][1] != versions[1][1]
