"""Secrets in files that only this user may read."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def remembered_secret(file: Path) -> str:
    """The secret in `file`; the first call writes a random one of 192 bits that needs no encoding in a URL."""
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def write_secret(file: Path, text: str) -> None:
    """Write `text` atomically, readable by this user alone (mode 0600)."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    new.replace(file)
