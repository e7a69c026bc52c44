"""The environment of a command: the variables, completed by what `sliceway up` has written on this machine."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.config.variables import given, without_service_links
from worker.db.url import DatabaseUrl
from worker.errors import SlicewayError
from worker.local.errors import LocalError
from worker.local.state import State, default_state
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.config.settings import Settings
    from worker.db.pool import Database
    from worker.local.state import Up


class Unreachable(SlicewayError):
    """A server that the command needs does not answer."""

    code = "unreachable"
    advice = "Start it, or correct its address; `sliceway doctor` checks everything."


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment, completed by what `sliceway up` runs, unless it names another installation.

    `SLICEWAY_API_URL` or `SLICEWAY_DATABASE_URL` names another installation if `up` uses another value.
    `SLICEWAY_API_KEY` alone names another one if `up` does not run. Otherwise the ports, files and servers of `up`
    replace those that the variables name.
    """
    variables = without_service_links(environ)
    try:
        state = State(default_state(variables).absolute())
        up = state.up()
        named = given(variables)
        if _names_another(named, up, state):
            return variables
        key = named.get("SLICEWAY_API_KEY") or state.api_key.read_text().strip()
        return variables | _run_by(up, state) | {"SLICEWAY_API_KEY": key}
    except (OSError, ValueError, TypeError, KeyError, LocalError):  # no state folder, or not this user's
        return variables


def _names_another(named: Mapping[str, str], up: Up, state: State) -> bool:
    if url := named.get("SLICEWAY_API_URL"):
        return url.rstrip("/") != up.api_url
    if database := named.get("SLICEWAY_DATABASE_URL"):
        return str(DatabaseUrl.of(database)) != up.database
    return "SLICEWAY_API_KEY" in named and not state.runs()


def _run_by(up: Up, state: State) -> dict[str, str]:
    from worker.local.postgres import EmbeddedPostgres  # noqa: PLC0415 - commands on the API do not need it
    from worker.local.valkey import EmbeddedValkey  # noqa: PLC0415

    ports = json.loads((state.folder / "ports.json").read_text())
    found = {
        "SLICEWAY_STATE_DIR": str(state.folder),
        "SLICEWAY_STORES_FILE": up.stores_file,
        "SLICEWAY_API_PORT": str(up.api_port),
        "SLICEWAY_API_URL": up.api_url,
    }
    if up.database is None:
        found["SLICEWAY_DATABASE_URL"] = EmbeddedPostgres(state.folder / "postgres", port=ports["postgres"]).url
    if up.broker is None:
        found["SLICEWAY_BROKER_URL"] = EmbeddedValkey(state.folder / "valkey", port=ports["valkey"]).url
    return found


def settings_here(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings, and set up the logging by them.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    from worker.config.settings import load_settings  # noqa: PLC0415 - `--help` does not need it
    from worker.telemetry.log import set_up  # noqa: PLC0415

    settings = load_settings(environ)
    set_up(settings.log_format, settings.log_level)
    return settings


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """Open the database for a few statements.

    Raises:
        Unreachable: the database does not answer, or has no tables.
    """
    import psycopg  # noqa: PLC0415
    import sqlalchemy.exc  # noqa: PLC0415

    from worker.db.pool import Database  # noqa: PLC0415
    from worker.db.session_settings import POOLER_ADVICE, unexpected_pooler  # noqa: PLC0415

    pooled = settings.database_direct_url is not None
    database = Database(settings.database_url, pool_size=1, pooled=pooled, application="sliceway cli")
    try:
        yield database
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        if (pooler := unexpected_pooler(error)) is not None:
            raise Unreachable(str(pooler), advice=POOLER_ADVICE) from error
        advice = "Start it, or correct SLICEWAY_DATABASE_URL; `sliceway doctor` checks everything."
        raise Unreachable(f"the database cannot be reached: {first_line(error)}", advice=advice) from error
    except psycopg.errors.UndefinedTable as error:
        raise Unreachable("the database has no tables yet", advice="Run `sliceway migrate`.") from error
    finally:
        database.close()
