"""The account that runs a server which refuses root, and the folders that this account can enter."""

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
    """A user of the system without privileges."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for servers that refuse root: `nobody` if this process runs as root, else None (this user).

    Raises:
        LocalError: this process runs as root and the system has no user `nobody`.
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
    """The arguments with which `subprocess` runs a program as `account`; None is this user."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def first_closed_folder(path: Path, account: Account) -> Path | None:
    """The first folder on the path, the last included, that `account` may not enter; None if it may enter all."""
    real = path.resolve()
    return next((folder for folder in [*reversed(real.parents), real] if not _may(folder, account, _ENTER)), None)


def may_run(program: Path, account: Account) -> bool:
    """Whether `account` can reach `program` and run it."""
    return first_closed_folder(program.parent, account) is None and _may(program, account, _READ | _ENTER)


def make_folder(folder: Path, account: Account | None) -> None:
    """Make `folder` and its missing parents, for this user alone, except that `account` may pass through them.

    Existing folders keep their permissions.

    Raises:
        LocalError: `account` cannot enter the folder, or the folder cannot be made.
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
