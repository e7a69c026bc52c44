"""Which account runs a server that refuses root, and where that account can get at."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.local.errors import LocalError

if TYPE_CHECKING:
    from pathlib import Path

_READ, _ENTER = 4, 1


@dataclass(frozen=True, slots=True)
class Account:
    """A user without privileges, as the system knows it."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Who runs the servers that refuse root: `nobody` if we are root, else None, which is ourselves.

    Raises:
        LocalError: we are root and the system has no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise LocalError(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as",
            advice="Add that user, or run sliceway as a user other than root.",
        ) from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def run_as(account: Account | None) -> dict[str, Any]:
    """The arguments that make `subprocess` run a program as `account`, or as ourselves."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def first_closed_folder(path: Path, account: Account) -> Path | None:
    """The first folder on the way to `path`, itself included, that `account` may not enter; None if it may all."""
    real = path.resolve()
    return next((folder for folder in [*reversed(real.parents), real] if not _may(folder, account, _ENTER)), None)


def may_run(program: Path, account: Account) -> bool:
    """Whether `account` can get at `program` and run it."""
    return first_closed_folder(program.parent, account) is None and _may(program, account, _READ | _ENTER)


def make_folder(folder: Path, account: Account | None) -> None:
    """Make `folder` and what is missing above it: ours alone, except that `account` may pass through.

    Folders that are already there are left as they are.

    Raises:
        LocalError: `account` cannot get there, or the folder cannot be made.
    """
    missing = [one for one in [folder, *folder.parents] if not one.exists()]
    try:
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            one.chmod(0o711 if account else 0o700)
    except OSError as error:
        raise LocalError(
            f"cannot make the folder {folder}: {error.strerror}", advice="Choose another one with --state DIR."
        ) from error
    if account and (closed := first_closed_folder(folder, account)):
        raise LocalError(
            f"{folder} cannot be used by root: PostgreSQL runs as the user {account.name}, who may not enter {closed}",
            advice="Choose a folder that others may pass through, such as /var/lib/sliceway, with --state DIR.",
        )


def _may(path: Path, account: Account, wanted: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        granted = status.st_mode >> 6
    elif status.st_gid == account.gid:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & wanted == wanted
