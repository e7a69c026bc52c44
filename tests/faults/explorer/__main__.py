"""Searches small worlds on a PostgreSQL of its own, and prints how much of each it has seen.

python -m tests.faults.explorer            the large worlds, for minutes
python -m tests.faults.explorer --small    those of the test
python -m tests.faults.explorer --most 100000 "another client"    those with this name, at most so many states of each
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import psycopg

from tests.faults.explorer.search import Explorer, InvariantViolated
from tests.faults.explorer.worlds import LARGE, SMALL
from worker.db.migrate import migrate
from worker.db.pool import conninfo
from worker.local.postgres import EmbeddedPostgres


def main() -> int:
    """Run the command line; 1 if an invariant is violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.explorer", description="Search small worlds whole.")
    parser.add_argument("name", nargs="?", default="", help="only worlds whose name contains this")
    parser.add_argument("--small", action="store_true", help="the worlds of the test")
    parser.add_argument("--most", type=int, default=10_000_000, help="no more states of a world than this")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # tasks log every injected fault
    with tempfile.TemporaryDirectory(prefix="sliceway-explorer-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database may run as another user
        server = EmbeddedPostgres(folder / "postgres", durable=False)
        server.start()
        try:
            url = _database(server)
            violated = 0
            for title, world in (SMALL if arguments.small else LARGE).items():
                if arguments.name in title:
                    violated += _search(title, Explorer(world, url, folder), arguments.most)
        finally:
            server.stop("immediate")
    return min(1, violated)


def _database(server: EmbeddedPostgres) -> str:
    with psycopg.connect(conninfo(server.url_of("postgres")), autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_explorer")
    url = server.url_of("test_explorer")
    migrate(url)
    return url


def _search(title: str, explorer: Explorer, max_states: int) -> bool:
    try:
        sys.stdout.write(f"{title}: {explorer.explore(max_states)}\n")
    except InvariantViolated as violated:
        sys.stdout.write(f"{title}: VIOLATED\n{violated}\n")
        return True
    finally:
        sys.stdout.flush()
    return False


if __name__ == "__main__":
    sys.exit(main())
