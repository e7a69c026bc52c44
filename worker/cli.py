"""The command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from worker.errors import SlicewayError
from worker.log import set_up
from worker.settings import Settings, load_settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Sliceway: a durable upload job queue."""


def _settings() -> Settings:
    settings = load_settings()
    set_up(settings.log_format, settings.log_level)
    return settings


@cli.command()
@click.option("--state", type=click.Path(path_type=Path), help="Where servers, logs and keys are kept.")
def up(state: Path | None) -> None:
    """Run everything on this machine, until Ctrl-C."""
    from worker.local import up as local  # noqa: PLC0415

    local.run(state)


@cli.command()
def demo() -> None:
    """Show a real upload, with a worker killed on the way."""
    from worker.local import demo as local  # noqa: PLC0415

    local.run()


@cli.command()
def migrate() -> None:
    """Bring the database up to date."""
    from worker.db import migrate as run  # noqa: PLC0415

    run(_settings().database_url)


@cli.command()
def api() -> None:
    """Serve the HTTP API."""
    os.execv(sys.executable, [sys.executable, "-m", "api"])  # noqa: S606 - the engine never imports the door


@cli.command()
def worker() -> None:
    """Run worker processes."""
    from worker.pool import run  # noqa: PLC0415

    sys.exit(run(_settings()))


@cli.command()
def flower() -> None:
    """Run Flower, behind a password."""
    from worker.errors import SettingsError  # noqa: PLC0415

    settings = _settings()
    if settings.flower_basic_auth is None:
        raise SettingsError("SLICEWAY_FLOWER_BASIC_AUTH is not set", advice="Set it to user:password.")
    environ = os.environ | {"FLOWER_BASIC_AUTH": settings.flower_basic_auth.get_secret_value()}
    argv = [sys.executable, "-m", "celery", "-A", "worker", "flower"]
    argv += [f"--address={settings.flower_host}", f"--port={settings.flower_port}"]
    os.execve(sys.executable, argv, environ)  # noqa: S606


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def emulator(args: tuple[str, ...]) -> None:
    """Run the COS emulator; `--help` for its options."""
    from worker.emulator.__main__ import main as run  # noqa: PLC0415

    sys.exit(run(list(args)))


def main() -> None:
    """Run the command line; errors are one line."""
    try:
        cli()
    except SlicewayError as error:
        click.echo(f"sliceway: {error.message}; {error.advice}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
