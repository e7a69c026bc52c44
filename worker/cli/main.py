"""The command line: its roles, its errors in one line, its exit codes.

A command imports what it needs in its own body, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.actions import ACTIONS
from worker.cli.admin import doctor, keys, migrate, stores
from worker.cli.audit import audit
from worker.cli.bulk import bulk_actions
from worker.cli.drill import drill
from worker.cli.holds import holds, queue, tenants
from worker.cli.jobs import jobs, put
from worker.cli.limits import limits
from worker.cli.sql import print_sql
from worker.cli.why import job_why, why
from worker.config.variables import without_service_links
from worker.errors import SettingsError, SlicewayError
from worker.telemetry.log import show_failures_without_secrets
from worker.urls import Host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.config.settings import Settings

_RABBITMQ_HTTPS = 15671
FAILED, USAGE, UNREACHABLE, NOT_PROVEN, INTERRUPTED = 1, 2, 3, 4, 130
_CODES = {"unreachable": UNREACHABLE, "not_proven": NOT_PROVEN, "interrupted": INTERRUPTED, "bad_name": USAGE}


@dataclass(frozen=True, slots=True)
class _Failure:
    """What the command line prints of a failure: the members of its problem document, and the exit code."""

    message: str
    advice: str
    code: str
    exit_code: int
    more: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the failure in one line, for people."""
        return " ".join(f"{self.message.rstrip('.')}. {self.advice}".split())

    def document(self) -> dict[str, Any]:
        """Return the failure as a problem document (RFC 9457). It has all members of the API's own document."""
        members = {"detail": self.message, "code": self.code, "advice": self.advice}
        return {"type": "about:blank", **self.more, **members, "exit_code": self.exit_code}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return f"sliceway {installed('sliceway')}"
    except PackageNotFoundError:
        return "sliceway, from a checkout that is not installed"


def _print_version(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        click.echo(_version())
        ctx.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done; 1 refused, or a job or a check failed; 2 wrong usage or settings; 3 not reachable, or"
    " not able to answer now: the same command may succeed later; 4 a drill has proven nothing; 130 interrupted.",
)
@click.option(
    "--version",
    "-V",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Sliceway: a durable upload job queue.

    Settings are SLICEWAY_... variables. Where those name neither database nor API, commands work with what
    `sliceway up` runs on this machine.
    """


jobs.add_command(job_why)
jobs.add_command(bulk_actions)
for command in (put, jobs, why, audit, holds, limits, queue, tenants, keys, stores, migrate, doctor, drill, print_sql):
    cli.add_command(command)
for action in ACTIONS:
    jobs.add_command(action)


def _settings() -> Settings:
    from worker.client.environment import settings_here  # noqa: PLC0415

    return settings_here()


@cli.command()
@click.option("--state", type=click.Path(path_type=Path), help="Folder of servers, logs and keys.")
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
def api() -> None:
    """Serve the HTTP API."""
    os.execv(sys.executable, [sys.executable, "-m", "api"])  # noqa: S606 - the engine never imports the API


@cli.command()
def worker() -> None:
    """Run worker processes."""
    from worker.config.authorities import check_authorities  # noqa: PLC0415
    from worker.config.credentials import warn_of_short_secrets  # noqa: PLC0415
    from worker.config.imports import import_modules  # noqa: PLC0415
    from worker.db.upgrade import refuse_unexpected_pooler  # noqa: PLC0415
    from worker.runtime.supervisor import run  # noqa: PLC0415

    settings = _settings()
    check_authorities(settings.profiles)  # here, so that one process reports a wrong profile and not each worker
    import_modules(settings.import_)  # likewise
    warn_of_short_secrets()
    refuse_unexpected_pooler(settings.database_url, settings.database_direct_url)
    sys.exit(run(settings))


@cli.command()
def flower() -> None:
    """Run Flower, behind a password."""
    from worker.config.credentials import warn_of_short_secrets  # noqa: PLC0415

    settings = _settings()
    secret = settings.flower_basic_auth.get_secret_value() if settings.flower_basic_auth else ""
    user, _, password = secret.partition(":")
    if not user or not password:
        raise SettingsError(
            "SLICEWAY_FLOWER_BASIC_AUTH is not set to user:password, and Flower can stop workers",
            advice="Set it; Flower asks every visitor for it.",
        )
    warn_of_short_secrets()
    environ = without_service_links(os.environ)  # Flower reads FLOWER_PORT as a setting of its own
    if settings.broker.scheme == "amqps":  # Flower's own default sends the broker's password over plain HTTP
        environ.setdefault("FLOWER_BROKER_API", f"https://{Host(settings.broker.host, _RABBITMQ_HTTPS)}/api/")
    os.execve(sys.executable, [sys.executable, "-m", "worker.flower"], environ)  # noqa: S606


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def emulator(args: tuple[str, ...]) -> None:
    """Run the COS emulator; `--help` lists its options."""
    from worker.emulator.__main__ import main as run  # noqa: PLC0415

    sys.exit(run(list(args)))


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(_version())


def main() -> None:
    """Run the command line. An error is one line that says what to do; the exit code says its kind."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None: this process's own) and return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_encoding(argv)
        return int(cli.main(argv, prog_name="sliceway", standalone_mode=False) or 0)
    except BrokenPipeError:  # the reader of our output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command prints its help
        click.echo(error.format_message())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        failure = _explain(error)
        if failure.exit_code == FAILED and os.environ.get("SLICEWAY_LOG_LEVEL") == "debug":
            show_failures_without_secrets()
            raise
        _print_failure(failure, as_json="--json" in argv)
        return failure.exit_code


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse an argument that no job, key or setting can hold.

    Raises:
        SlicewayError: an argument is not UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            escaped = os.fsencode(argument).decode(errors="backslashreplace")
            raise SlicewayError(
                f"{escaped} is not UTF-8", code="bad_name", advice="Rename the file, or write the argument in UTF-8."
            ) from None


def _explain(error: BaseException) -> _Failure:
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "sliceway"
            return _Failure(error.format_message(), f"See `{path} --help`.", "usage", USAGE)
        case click.ClickException():
            return _Failure(error.format_message(), "", "failed", FAILED)
        case click.Abort() | KeyboardInterrupt():
            return _Failure("interrupted", "", "interrupted", INTERRUPTED)
        case SettingsError():
            return _Failure(error.message, error.advice, error.code, USAGE)
        case SlicewayError():
            return _refused(error) or _Failure(error.message, error.advice, error.code, _CODES.get(error.code, FAILED))
        case _:
            text = f"{type(error).__name__}: {error}"
            return _Failure(text, "SLICEWAY_LOG_LEVEL=debug shows where it happened.", "internal", FAILED)


def _refused(error: SlicewayError) -> _Failure | None:
    """Return the failure of a request that the API has refused; None for any other error."""
    document, status = getattr(error, "document", None), getattr(error, "status", None)
    if document is None or status is None:
        return None
    from worker.client.answers import is_temporary_status  # noqa: PLC0415

    exit_code = UNREACHABLE if is_temporary_status(status) else FAILED
    return _Failure(error.message, error.advice, error.code, exit_code, document)


def _print_failure(failure: _Failure, *, as_json: bool) -> None:
    from worker.cli.output import printable  # noqa: PLC0415
    from worker.telemetry.redact import redact, redact_json  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps(redact_json(failure.document()), ensure_ascii=False), err=True)
    else:
        click.echo(f"sliceway: {printable(redact(failure.line()))}", err=True)
