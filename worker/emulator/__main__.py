"""`python -m worker.emulator`: the emulator in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from worker.emulator.config import EmulatorConfig, StoreAccount
from worker.emulator.server import Emulator


def main(argv: list[str] | None = None) -> int:
    """Runs an emulator until SIGTERM or SIGINT and returns the exit code."""
    config = read_arguments(argv)
    try:
        run(config)
    except OSError as error:
        sys.stderr.write(f"emulator: {error}; choose another --port, --control-port or --data-dir\n")
        return 1
    return 0


def run(config: EmulatorConfig) -> None:
    """Serves until SIGTERM or SIGINT; says in one line where, as soon as it listens. Call it in the main thread.

    Raises:
        OSError: An address is taken, or the data folder cannot be used.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Emulator(config) as emulator:
        where = f"store {emulator.url} control {emulator.control_url} token {emulator.token_file}"
        sys.stdout.write(f"emulator: {where}\n")
        sys.stdout.flush()
        stop.wait()


def read_arguments(argv: list[str] | None) -> EmulatorConfig:
    """The configuration that a command line describes; a wrong one ends the process as argparse does."""
    parser = argparse.ArgumentParser(prog="python -m worker.emulator", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where objects and unfinished uploads are kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose (default)")
    parser.add_argument("--control-port", type=int, default=0, help="on 127.0.0.1; 0 lets the system choose (default)")
    parser.add_argument("--appid", required=True)
    parser.add_argument("--bucket", action="append", required=True, help="may be given several times")
    parser.add_argument("--secret-id", required=True)
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--secret-key", help="seen by every user of this machine; prefer --secret-key-file")
    key.add_argument("--secret-key-file", type=Path, help="a file that holds the secret key and nothing else")
    parser.add_argument("--rate", type=int, help="bytes a second that all uploads together may send")
    parser.add_argument("--no-verify", action="store_true", help="accept requests whatever their signature")
    parser.add_argument("--no-fsync", action="store_true", help="for benchmarks: trust the machine not to fail")
    parser.add_argument("--discard", action="store_true", help="for benchmarks: receive slices and forget them")
    parser.add_argument("--journal", type=Path, metavar="PATH", help="append every request and its effect to this file")
    given = parser.parse_args(argv)
    try:
        secret_key = given.secret_key or given.secret_key_file.read_text().strip()
    except OSError as error:
        parser.error(f"--secret-key-file: {error}")
    return EmulatorConfig(
        data_dir=given.data_dir,
        host=given.host,
        port=given.port,
        control_port=given.control_port,
        accounts=(StoreAccount(given.appid, tuple(given.bucket), given.secret_id, secret_key),),
        verify_signatures=not given.no_verify,
        fsync=not given.no_fsync,
        discard=given.discard,
        rate_bytes_per_s=given.rate,
        journal_file=given.journal,
    )


if __name__ == "__main__":
    sys.exit(main())
