"""How a file's name becomes the source and the key of a request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.cli.arguments import BadName, NotBelowRoot, place_of, source_of
from worker.errors import SettingsError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A stores file with a root and a root inside it; the command line cannot read the store's secret."""
    (tmp_path / "media/video").mkdir(parents=True)
    (tmp_path / "media/a.mp4").touch()
    (tmp_path / "media/video/b.mp4").touch()
    (tmp_path / "elsewhere.mp4").touch()
    file = tmp_path / "stores.toml"
    file.write_text(
        f'[roots.media]\npath = "{tmp_path}/media"\n[roots.video]\npath = "{tmp_path}/media/video"\n'
        '[stores.main]\nsecret_key_file = "not-there"\n'
    )
    return {"SLICEWAY_STORES_FILE": str(file)}


def test_the_nearest_root_above_a_file_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    assert source_of(tmp_path / "media/a.mp4", environ) == {"kind": "file", "root": "media", "path": "a.mp4"}
    assert source_of(tmp_path / "media/video/b.mp4", environ) == {"kind": "file", "root": "video", "path": "b.mp4"}


def test_a_link_is_where_it_leads(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "media/a.mp4")
    (tmp_path / "media/out").symlink_to(tmp_path / "elsewhere.mp4")
    assert source_of(tmp_path / "link", environ)["path"] == "a.mp4"
    with pytest.raises(NotBelowRoot, match="below no root"):
        source_of(tmp_path / "media/out", environ)


def test_a_file_below_no_root_is_refused_with_the_roots_there_are(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(NotBelowRoot, match=f"media = {tmp_path}/media") as refused:
        source_of(tmp_path / "elsewhere.mp4", environ)
    assert "stores file" in refused.value.advice


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("media/none", "there is no file"),
        ("media/a.mp4/none", "there is no file"),
        ("media", "media is a folder"),
        ("media/pipe", "no regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_is_no_file_is_refused_with_the_reason(
    tmp_path: Path, environ: dict[str, str], name: str, says: str
) -> None:
    os.mkfifo(tmp_path / "media/pipe")
    with pytest.raises(NotBelowRoot, match=says):
        source_of(tmp_path / name, environ)


def test_a_name_that_is_not_utf_8_is_refused_by_name(tmp_path: Path, environ: dict[str, str]) -> None:
    named = Path(os.fsdecode(os.fsencode(tmp_path / "media") + b"/caf\xe9.mov"))
    named.touch()
    link = tmp_path / "link"
    link.symlink_to(named)
    for file in (named, link):
        with pytest.raises(BadName, match=r"caf\\xe9\.mov is not UTF-8"):
            source_of(file, environ)
    with pytest.raises(BadName):
        place_of("main:", named)


@pytest.mark.parametrize("text", [None, "[roots", "roots = 1", "[roots.a]\n"])
def test_a_stores_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "a").touch()
    file = tmp_path / "stores.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match="SLICEWAY_STORES_FILE"):
        source_of(tmp_path / "a", {"SLICEWAY_STORES_FILE": str(file)})
    with pytest.raises(SettingsError, match="SLICEWAY_STORES_FILE is not set"):
        source_of(tmp_path / "a", {})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("main:a/b.mp4", ("main", "a/b.mp4")),
        ("main:a:b", ("main", "a:b")),
        ("main:a/", ("main", "a/x.mp4")),
        ("main:", ("main", "x.mp4")),
    ],
)
def test_a_place_is_a_store_and_a_key(tmp_path: Path, text: str, place: tuple[str, str]) -> None:
    assert place_of(text, tmp_path / "x.mp4") == place


@pytest.mark.parametrize("text", ["main", ":key", ""])
def test_a_place_without_a_store_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="STORE:KEY"):
        place_of(text, tmp_path / "x.mp4")
