"""Which process listens on a port, by the kernel's tables: an answer at the port may be another program's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_LISTEN = "0A"


def listens(pid: int, port: int) -> bool:
    """Say whether a process listens on a TCP port; true on a system without /proc."""
    tables = [_PROC / str(pid) / "net" / name for name in ("tcp", "tcp6")]
    if not (_PROC / "self/net/tcp").exists():
        return True
    try:
        listening = {f"socket:[{inode}]" for table in tables if table.exists() for inode in _listeners(table, port)}
        return any(_target(file) in listening for file in (_PROC / str(pid) / "fd").iterdir())
    except OSError:  # the process has ended meanwhile
        return False


def _listeners(table: Path, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port; the table's fields are described in proc(5)."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _target(file: Path) -> str:
    try:
        return os.readlink(file)  # noqa: PTH115 - `socket:[17]` is no path
    except OSError:  # the process has closed it meanwhile
        return ""
