"""`sliceway stores reload`: every process of the installation reads its stores file again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from worker.cli.output import Columns, json_option, print_json, print_table
from worker.errors import SettingsError, SlicewayError
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from worker.db.pool import Database
    from worker.jobs.stores_reload import StoresInUse

POLL_S = 0.2
_COLUMNS = Columns(("ROLE", "PROCESS", "VERSION", "STATE"), ("PROCESS", "STATE", "ROLE", "VERSION"))


@click.command("reload")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Seconds to wait for the processes; the reload itself stays asked for.",
)
@json_option
def reload_stores(timeout_s: float, *, as_json: bool) -> None:
    """Have every API and worker process read its stores file and secrets again.

    The file of this machine is checked first: a wrong one is refused, and no process is asked.
    """
    from worker.client.environment import database_of, environment, settings_here  # noqa: PLC0415
    from worker.config.authorities import check_authorities  # noqa: PLC0415
    from worker.jobs.stores_reload import ask_reload, latest  # noqa: PLC0415

    settings = settings_here(environment())
    if settings.stores_file is None:
        raise SettingsError("SLICEWAY_STORES_FILE is not set, so there is no file to read", advice="Set it.")
    check_authorities(settings.profiles)
    with database_of(settings) as database:
        with database.connection() as tx:
            request, _ = latest(tx)
            version = settings.live_profiles.version(request.key)
            generation = ask_reload(tx, version)
        found = _wait(database, generation, timeout_s)
    behind = [each for each in found if not each.is_current(generation, version)]
    if as_json:
        processes = [_document(each, generation, version) for each in found]
        print_json(redact_json({"version": version, "generation": generation, "processes": processes}))
    else:
        click.echo(f"The stores file here is version {version}.")
        if found:
            cells = [(each.role, each.name, _version(each), each.state(generation, version)) for each in found]
            print_table(_COLUMNS, cells)
        else:
            click.echo("No process runs; each reads the file when it starts.")
    if behind:
        raise SlicewayError(
            f"{len(behind)} of {len(found)} processes do not work with version {version}",
            code="stores_behind",
            advice="See the lines above; a silent one reads its file when it goes on. `sliceway doctor` looks again.",
        )


def _wait(database: Database, generation: int, timeout_s: float) -> list[StoresInUse]:
    """Return the processes as soon as each has done this reload, or when the time is over."""
    from worker.jobs.stores_reload import stores_in_use  # noqa: PLC0415

    until_s = time.monotonic() + timeout_s
    while True:
        with database.connection() as tx:
            found = stores_in_use(tx)
        if all(each.generation >= generation for each in found) or time.monotonic() >= until_s:
            return found
        time.sleep(POLL_S)


def _version(process: StoresInUse) -> str:
    return "" if process.stores is None else process.stores["version"]


def _document(process: StoresInUse, generation: int, version: str) -> dict[str, object]:
    return {
        "role": process.role,
        "name": process.name,
        "version": _version(process) or None,
        "current": process.is_current(generation, version),
        "state": process.state(generation, version),
    }
