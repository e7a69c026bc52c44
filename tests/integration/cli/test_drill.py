"""`sliceway drill` that cannot begin: one line says why, and the drill changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("drill --store other", "there is no store 'other'. There are: main."),
        ("drill --root other", "there is no root 'other'. There are: media."),
        ("drill", "SLICEWAY_API_KEY is not set"),
        ("drill --size 0", "--size"),
        ("drill --timeout soon", "--timeout"),
    ],
)
def test_a_wrong_option_or_setting_is_reported(installation: Any, line: str, says: str) -> None:
    installation.fails(line, 2, says)


def test_one_of_several_has_to_be_named(installation: Any, tmp_path: Path) -> None:
    file = tmp_path / "stores.toml"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    twin = file.read_text().partition("[roots")[0].replace("stores.main", "stores.twin")
    file.write_text(file.read_text() + f'[roots.other]\npath = "{tmp_path}/other"\n')
    installation.fails("drill", 2, "there is not one root", "media, other", "--root")
    installation.fails("drill --root media", 2, "SLICEWAY_API_KEY")
    file.write_text(file.read_text() + twin)
    installation.fails("drill --root media", 2, "there is not one store", "main, twin", "--store")


def test_a_root_that_is_not_mounted_gets_no_file(installation: Any, tmp_path: Path) -> None:
    (tmp_path / "media/a.bin").unlink()
    for line in ("drill", "drill --root media"):
        installation.fails(line, 2, "root 'media'", "is empty, as the mount point")
    assert list((tmp_path / "media").iterdir()) == []


def test_servers_that_are_away_are_reported_before_the_drill_begins(
    installation: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLICEWAY_API_KEY", "slw_fake-secret")
    assert installation("drill --json") == 4
    assert json.loads(installation.out)["outcome"] == "not_proven"
    assert "no drill was begun: broker: " in installation.err
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", "postgresql+psycopg://sliceway:fake-secret-1@127.0.0.1:1/sliceway")
    installation.fails("drill", 4, "no drill was begun: database: ")
    assert "fake-secret-1" not in installation.err
    assert [file.name for file in (tmp_path / "media").iterdir()] == ["a.bin"]
