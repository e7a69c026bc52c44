"""PostgreSQL of any release on loopback, and the ways in which people have it: TLS, a schema, PgBouncer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import sql

from worker.local.account import run_as, server_account
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "fake-secret-postgres"
_ENV = {"PATH": os.defpath, "LC_ALL": "C"}
_ANSWERS_WITHIN_S = 120


class PostgresServer:
    """A cluster whose files are in a folder; its superuser `sliceway` has a database of that name."""

    def __init__(self, folder: Path, home: Path, *, identity: Path | None = None) -> None:
        """Make the cluster; ``identity`` is a file with key and certificate, with which it speaks TLS.

        Args:
            folder: which the server's account may pass through.
            home: the installation, with `bin`.
            identity: None: it speaks no TLS.
        """
        self._folder, self._home = folder, home
        self._account = server_account()
        self._options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        self._own(folder)
        (folder / "password").write_text(PASSWORD)
        options = ("--username=sliceway", f"--pwfile={folder}/password", "--auth=scram-sha-256", "--no-sync")
        self._run("initdb", f"--pgdata={folder}/data", *options, "--encoding=UTF8", "--locale=C")
        if identity is not None:
            shutil.copyfile(identity, folder / "identity.pem")
            (folder / "identity.pem").chmod(0o600)
            self._own(folder / "identity.pem")
            self._options |= {"ssl": "on", **dict.fromkeys(("ssl_cert_file", "ssl_key_file"), f"{folder}/identity.pem")}

    def _own(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)

    def _run(self, program: str, *arguments: str) -> None:
        argv = [str(self._home / "bin" / program), *arguments]
        done = subprocess.run(
            argv, env=_ENV, cwd=self._folder, capture_output=True, text=True, check=False, **run_as(self._account)
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it, and return when it answers and has its database."""
        self.port = free_port()  # not before: another run may take it while the cluster is made
        given = self._options | {"port": str(self.port)}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        argv: list[str | Path] = [self._home / "bin/postgres", "-D", self._folder / "data", *options]
        log = self._folder / "postgres.log"
        self._child = Child(
            argv, log=log, env=_ENV, cwd=self._folder, account=self._account, last_signal=signal.SIGQUIT
        )
        there = wait_until(self._answers, timeout_s=_ANSWERS_WITHIN_S, poll_s=0.1, alive=self._lives)
        assert there, log.read_text()
        self.run("CREATE DATABASE sliceway", database="postgres")

    def _lives(self) -> bool:
        return self._child.poll() is None

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1", database="postgres")
        except psycopg.OperationalError:
            return False
        return True

    def run(self, statement: str | sql.Composed, *, database: str = "sliceway") -> list[tuple[object, ...]]:
        """Run a statement as the superuser and return its rows."""
        with psycopg.connect(self.url(database=database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode() if isinstance(statement, str) else statement)
            return cursor.fetchall() if cursor.description else []

    def role(self, name: str, password: str) -> None:
        """Make a role that may do everything in the database, as its owner may."""
        role = sql.Identifier(name)
        self.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
        self.run(sql.SQL("ALTER DATABASE sliceway OWNER TO {}").format(role))
        self.run(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))

    def url(
        self, options: str = "", *, role: str = "sliceway", password: str = PASSWORD, database: str = "sliceway"
    ) -> str:
        """Return its URL, with options after the question mark."""
        place = f"{role}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{place}{'?' if options else ''}{options}"

    def stop(self) -> None:
        """Stop it at once."""
        self._child.stop(signal.SIGQUIT)


class PgBouncer:
    """A pooler in transaction mode: transactions of all clients share its few sessions with the server."""

    def __init__(self, folder: Path, program: Path, server: PostgresServer, **settings: str) -> None:
        """Configure it.

        Args:
            folder: its own.
            program: `pgbouncer`.
            server: where it leads to.
            settings: more of its configuration.
        """
        self.port = free_port()
        self._folder, self._program, self._account = folder, program, server_account()
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",  # the password below is the server's
            "pool_mode": "transaction",
            "default_pool_size": "10",
            "max_client_conn": "500",
        } | settings
        lines = [
            "[databases]",
            f"sliceway = host=127.0.0.1 port={server.port} user=sliceway password={PASSWORD}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in given.items()),
        ]
        (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        self.url = f"postgresql://sliceway:{PASSWORD}@127.0.0.1:{self.port}/sliceway"

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = self._folder / "pgbouncer.log"
        argv = [self._program, self._folder / "pgbouncer.ini"]
        self._child = Child(argv, log=log, env=_ENV, cwd=self._folder, account=self._account)
        there = wait_until(
            self._answers, timeout_s=_ANSWERS_WITHIN_S, poll_s=0.1, alive=lambda: self._child.poll() is None
        )
        assert there, log.read_text()

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=5, prepare_threshold=None) as connection:
                connection.execute(b"SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it at once."""
        self._child.stop(signal.SIGINT)
