"""Files that no other user of this machine may read, and the token that opens the control endpoint."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_FILE = "control-token"
"""The file below the data folder that has the token."""


def private_folder(folder: Path) -> None:
    """Makes a folder that its owner alone may enter; one that is there is closed, if it is ours."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(PermissionError):  # a volume that another user owns: it is for them to close
        folder.chmod(0o700)


def private_file(file: Path) -> None:
    """Makes an empty file that its owner alone may read; one that is there keeps what it has."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    with contextlib.suppress(PermissionError):
        file.chmod(0o600)


def fresh_token(file: Path) -> str:
    """Puts another token into the file and returns it; the file is whole at any time."""
    token = secrets.token_urlsafe(24)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(token)
    new.replace(file)
    return token
