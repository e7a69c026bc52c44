"""What the command line works with: the environment, completed by what `sliceway up` keeps on this machine."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import SlicewayError
from worker.local.errors import LocalError
from worker.local.state import State, default_state
from worker.variables import without_service_links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.db import Database
    from worker.settings import Settings


class Unreachable(SlicewayError):
    """Something that has to be asked does not answer."""

    code = "unreachable"
    advice = "Start it, or correct its address; `sliceway doctor` looks at everything."


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment; if it names neither database nor API, with what `sliceway up` keeps in its folder."""
    given = without_service_links(environ)
    if not {"SLICEWAY_DATABASE_URL", "SLICEWAY_API_URL", "SLICEWAY_API_KEY"} & set(given):
        state = State(default_state(environ).absolute())
        try:
            return _kept(state) | given
        except (OSError, ValueError, KeyError, LocalError):  # there is none, or it is not ours to read
            return given
    return given


def _kept(state: State) -> dict[str, str]:
    from worker.local.postgres import EmbeddedPostgres  # noqa: PLC0415 - not for who talks to the API alone
    from worker.local.valkey import EmbeddedValkey  # noqa: PLC0415

    key = state.api_key.read_text().strip()
    ports = json.loads((state.folder / "ports.json").read_text())
    return {
        "SLICEWAY_STATE_DIR": str(state.folder),
        "SLICEWAY_DATABASE_URL": EmbeddedPostgres(state.folder / "postgres", port=ports["postgres"]).url,
        "SLICEWAY_BROKER_URL": EmbeddedValkey(state.folder / "valkey", port=ports["valkey"]).url,
        "SLICEWAY_STORES_FILE": str(state.stores),
        "SLICEWAY_API_PORT": str(ports["api"]),
        "SLICEWAY_API_URL": f"http://127.0.0.1:{ports['api']}",
        "SLICEWAY_API_KEY": key,
    }


def settings_here(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings, with the logging set up as they say.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    from worker.log import set_up  # noqa: PLC0415 - `--help` does without
    from worker.settings import load_settings  # noqa: PLC0415

    settings = load_settings(environ)
    set_up(settings.log_format, settings.log_level)
    return settings


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """Lend the database for a few statements.

    Raises:
        Unreachable: it does not answer, or has no tables.
    """
    import psycopg  # noqa: PLC0415
    import sqlalchemy.exc  # noqa: PLC0415

    from worker.db import Database  # noqa: PLC0415
    from worker.session_settings import POOLER_ADVICE, unexpected_pooler  # noqa: PLC0415

    pooled = settings.database_direct_url is not None
    database = Database(settings.database_url, pool_size=1, pooled=pooled, application="sliceway cli")
    try:
        yield database
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        if (pooler := unexpected_pooler(error)) is not None:
            raise Unreachable(str(pooler), advice=POOLER_ADVICE) from error
        advice = "Start it, or correct SLICEWAY_DATABASE_URL; `sliceway doctor` looks at everything."
        raise Unreachable(f"the database cannot be reached: {first_line(error)}", advice=advice) from error
    except psycopg.errors.UndefinedTable as error:
        raise Unreachable("the database has no tables yet", advice="Run `sliceway migrate`.") from error
    finally:
        database.close()


def first_line(error: BaseException) -> str:
    """Return an error's text as one line, free of secrets."""
    from worker.redact import redact  # noqa: PLC0415

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)
