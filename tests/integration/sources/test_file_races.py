"""Files that are renamed, linked or unmounted while they are opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.source_race import INSIDE, SourceRace, detach, mount
from worker.config.profiles import RootProfile
from worker.errors import RootUnavailable, SourceRefused
from worker.sources.file import _checked_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUNDS = 10_000
"""One or two seconds; `make faults-long FAULTS_ARGS="--sources 60"` runs for longer."""
can_mount = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: unmounted roots; only root can mount")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Return a mounted volume, which the test unmounts."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount(folder)
    (folder / "sub").mkdir()
    (folder / "file").write_bytes(INSIDE)
    yield folder
    assert not folder.is_mount()


def check_unmounted(root: Path, path: str, unmounted: Path) -> None:
    """Open a file below a root whose volume is unmounted after the root was opened, as `open_file` does."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY)
    detach(unmounted)
    handle = os.open(path, os.O_PATH, dir_fd=base)
    try:
        _checked_state(RootProfile(name="media", path=root), path, base, handle)
    finally:
        os.close(handle)
        os.close(base)


@can_mount
@pytest.mark.parametrize("target", ["/etc/passwd", "file"])
def test_a_root_that_is_unmounted_in_this_moment_waits(volume: Path, target: str) -> None:
    (volume / "link").symlink_to(target)
    with pytest.raises(RootUnavailable, match="unmounted or moved"):
        check_unmounted(volume, "link", volume)


@can_mount
def test_a_root_below_a_volume_does_not_become_a_folder_of_the_machine(volume: Path) -> None:
    """The root's name becomes "/etc", another folder, which has the file that the link leads to."""
    (volume / "etc").mkdir()
    (volume / "etc" / "link").symlink_to("/etc/passwd")
    with pytest.raises(RootUnavailable, match="unmounted or moved"):
        check_unmounted(volume / "etc", "link", volume)


@can_mount
def test_a_volume_below_the_root_that_is_unmounted_waits(volume: Path) -> None:
    with pytest.raises((RootUnavailable, SourceRefused)) as caught:
        check_unmounted_below(volume)
    assert caught.value.code == "root_unavailable"


def check_unmounted_below(volume: Path) -> None:
    base = os.open(volume.parent, os.O_PATH | os.O_DIRECTORY)
    handle = os.open("volume/file", os.O_PATH, dir_fd=base)
    detach(volume)
    try:
        _checked_state(RootProfile(name="media", path=volume.parent), "volume/file", base, handle)
    finally:
        os.close(handle)
        os.close(base)


def test_renames_and_links_never_show_a_file_outside(tmp_path: Path) -> None:
    race = SourceRace(tmp_path, 1, mounts=False)
    race.play(rounds=ROUNDS)
    assert not race.wrong
    assert race.outcomes["read"]
    assert race.outcomes["source_refused"]


@can_mount
def test_unmounting_never_shows_a_file_outside(tmp_path: Path) -> None:
    race = SourceRace(tmp_path, 2, mounts=True)
    race.play(rounds=ROUNDS)
    assert not race.wrong
    assert race.outcomes["read"]
