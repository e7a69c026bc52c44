from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from worker.local.account import Account, first_closed_folder, make_folder, may_run, run_as
from worker.local.errors import LocalError

OTHER_USER = Account("other", uid=4_000_001, gid=4_000_001)


@pytest.fixture
def top(server_folder: Path) -> Path:
    """A fresh folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(dir=server_folder))
    folder.chmod(0o711)
    return folder


@pytest.mark.parametrize(
    ("mode", "closed"), [(0o711, False), (0o701, False), (0o700, True), (0o744, True), (0o710, True)]
)
def test_other_user_needs_the_right_of_others_to_enter(top: Path, mode: int, closed: bool) -> None:
    (top / "a/b").mkdir(parents=True)
    (top / "a").chmod(mode)
    assert first_closed_folder(top / "a/b", OTHER_USER) == (top / "a" if closed else None)


def test_owner_and_group_go_by_their_own_bits(top: Path) -> None:
    ours = top / "ours"
    ours.mkdir()
    ours.chmod(0o070)
    status = ours.stat()
    assert first_closed_folder(ours, Account("owner", status.st_uid, 4_000_001)) == ours
    assert first_closed_folder(ours, Account("member", 4_000_001, status.st_gid)) is None


def test_link_leads_to_where_the_rights_are_looked_up(top: Path) -> None:
    (top / "closed/inner").mkdir(parents=True)
    (top / "closed").chmod(0o700)
    (top / "link").symlink_to(top / "closed/inner")
    assert first_closed_folder(top / "link", OTHER_USER) == top / "closed"


def test_program_must_be_readable_and_executable(top: Path) -> None:
    program = top / "program"
    program.touch()
    for mode, allowed in ((0o755, True), (0o711, False), (0o744, False)):
        program.chmod(mode)
        assert may_run(program, OTHER_USER) is allowed


def test_made_folders_let_the_account_through_and_are_ours_alone_otherwise(top: Path) -> None:
    make_folder(top / "for/it", OTHER_USER)
    make_folder(top / "mine/alone", None)
    modes = {name: (top / name).stat().st_mode & 0o777 for name in ("for", "for/it", "mine", "mine/alone")}
    assert modes == {"for": 0o711, "for/it": 0o711, "mine": 0o700, "mine/alone": 0o700}


def test_existing_folder_keeps_its_mode_and_is_named_when_it_is_in_the_way(top: Path) -> None:
    (top / "closed").mkdir(mode=0o700)
    with pytest.raises(LocalError, match=rf"other, who may not enter {top}/closed$") as caught:
        make_folder(top / "closed/state", OTHER_USER)
    assert (top / "closed").stat().st_mode & 0o777 == 0o700
    assert "--state" in caught.value.advice


def test_folder_that_cannot_be_made_is_named(top: Path) -> None:
    (top / "file").touch()
    with pytest.raises(LocalError, match=r"cannot make the folder .*/file/state: Not a directory"):
        make_folder(top / "file/state", None)


def test_account_drops_every_further_group() -> None:
    assert run_as(OTHER_USER) == {"user": 4_000_001, "group": 4_000_001, "extra_groups": []}
    assert run_as(None) == {}
