"""`sliceway drill`."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from worker.cli.output import finding_line, json_option, print_json
from worker.errors import SlicewayError
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.doctor.findings import Finding

_MIB = 1024 * 1024
_WIDTH = len("left behind")
"""The longest name of a step."""


@click.command(
    epilog="Exit codes: 0 proven; 1 a crash was not survived as promised, or something was left behind; 2 wrong usage"
    " or settings; 3 not reachable; 4 nothing was killed, so nothing is proven; 130 interrupted."
)
@click.option("--store", metavar="NAME", help="Where the canary's object goes; needed where there are several.")
@click.option("--root", metavar="NAME", help="Where its file is written; needed where several can be written here.")
@click.option("--size", "size_mib", type=click.IntRange(1, 10_240), default=32, show_default=True, metavar="MIB")
@click.option("--timeout", "timeout_s", type=click.IntRange(1), default=300, show_default=True, metavar="SECONDS")
@json_option
def drill(*, store: str | None, root: str | None, size_mib: int, timeout_s: int, as_json: bool) -> None:
    """Prove on a running installation that it survives the crash of a worker.

    The drill starts a worker process of its own. That process kills itself in the middle of a slice of the drill's own
    upload, and the drill measures when the other workers take over. It kills nothing else and leaves nothing behind.
    It needs a key with the scopes submit and operate, and a root that can be written here.
    """
    from worker.client.environment import environment, settings_here  # noqa: PLC0415
    from worker.drill.report import Report  # noqa: PLC0415 - `--help` does not need it
    from worker.drill.run import run  # noqa: PLC0415
    from worker.drill.site import Site, choose_root, choose_store  # noqa: PLC0415

    environ = environment()
    settings = settings_here(environ)
    site = Site(settings, choose_store(settings, store), choose_root(settings, root), size_mib * _MIB, timeout_s)

    def print_step(finding: Finding) -> None:
        if not as_json:
            click.echo(finding_line(finding, _WIDTH))

    report, outcome = Report(print_step), "internal"
    try:
        with _signals_as_ctrl_c():
            run(site, environ, report)
        outcome = "proven"
    except SlicewayError as error:
        outcome = error.code
        raise
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        if as_json:
            print_json(redact_json(report.document(outcome)))
    if not as_json:
        click.echo(f"Proven: {_summary(report.figures)}")


@contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too, so that the drill cleans up."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(figures: Any) -> str:
    twice = "" if figures.bytes_sent_twice is None else f" and {figures.bytes_sent_twice:,} bytes sent twice"
    return f"the crash of a worker has cost {figures.taken_over_s:.1f} s{twice}, and nothing else."
