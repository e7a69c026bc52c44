"""`python -m worker.emulator`: the emulator in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
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
    """Serves until SIGTERM or SIGINT; prints its addresses in one line. Call it in the main thread.

    Raises:
        OSError: An address is in use, or the data folder cannot be used.
    """
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before the threads start, which inherit it
    with Emulator(config) as emulator:
        addresses = f"store {emulator.url} control {emulator.control_url} token {emulator.token_file}"
        sys.stdout.write(f"emulator: {addresses}\n")
        sys.stdout.flush()
        signal.sigwait(stops)


def read_arguments(argv: list[str] | None) -> EmulatorConfig:
    """The configuration from the command line; exits with an error of argparse if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m worker.emulator", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of objects and unfinished uploads")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose (default)")
    parser.add_argument("--control-port", type=int, default=0, help="on 127.0.0.1; 0 lets the system choose (default)")
    parser.add_argument("--appid", required=True)
    parser.add_argument("--bucket", action="append", required=True, help="may be given several times")
    parser.add_argument("--secret-id", required=True)
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--secret-key", help="visible to every user of this machine; prefer --secret-key-file")
    key.add_argument("--secret-key-file", type=Path, help="a file with the secret key and nothing else")
    parser.add_argument("--rate", type=int, help="bytes per second of all uploads together")
    parser.add_argument("--no-verify", action="store_true", help="accept any signature")
    parser.add_argument("--no-fsync", action="store_true", help="for benchmarks: do not sync to the disk")
    parser.add_argument("--discard", action="store_true", help="for benchmarks: drop slices instead of storing them")
    parser.add_argument("--journal", type=Path, metavar="PATH", help="append every request and its effect to this file")
    arguments = parser.parse_args(argv)
    try:
        secret_key = arguments.secret_key or arguments.secret_key_file.read_text().strip()
    except OSError as error:
        parser.error(f"--secret-key-file: {error}")
    return EmulatorConfig(
        data_dir=arguments.data_dir,
        host=arguments.host,
        port=arguments.port,
        control_port=arguments.control_port,
        accounts=(StoreAccount(arguments.appid, tuple(arguments.bucket), arguments.secret_id, secret_key),),
        verify_signatures=not arguments.no_verify,
        fsync=not arguments.no_fsync,
        discard=arguments.discard,
        rate_bytes_per_s=arguments.rate,
        journal_file=arguments.journal,
    )


if __name__ == "__main__":
    sys.exit(main())
