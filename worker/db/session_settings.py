"""The session settings that the code relies on: one table, and the two ways in which a session gets them.

PostgreSQL takes them from its configuration, the database, the role, libpq's environment and the URL, any of which may
say otherwise. A direct connection sends ours as startup `options`, after those of the URL, whose others (`search_path`)
are kept. A pooler refuses `options`; there `sliceway migrate` sets the same for the role (`worker/db/upgrade.py`).

Left alone, since nothing of ours depends on them: `search_path` and `role` are the operator's;
`default_transaction_read_only` is an administrator's guard, for which work waits; `row_security` (no policies),
`backslash_quote`, `escape_string_warning` and `transform_null_equals` (no such literal in any statement), `lc_*`
(nothing is formatted by locale), `default_transaction_deferrable` (only serializable transactions heed it).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import Conninfo
from psycopg.rows import scalar_row
from sqlalchemy import create_engine, event

from worker.db.url import DatabaseUrl
from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine

CONNECT_TIMEOUT_S = 5
_DRIVER = "postgresql+psycopg://"
CLIENT_ENCODING = "UTF8"
"""Keys and labels are any text. A parameter of its own at the start of a session, which poolers know, too."""
PINNED = {
    # how values are written as text: psycopg reads only these forms
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # fewer round times and rates
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    # guarded statements wait for each other's row and read it once more; serializable would have one of two fail
    "default_transaction_isolation": "read committed",
    # a limit that is set for people's queries cuts off claims, LISTEN and connections that lie idle in a pool
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # compiling costs more than any statement of ours
    "jit": "off",
}
CONDITIONAL = {"synchronous_commit": "on", "transaction_timeout": "0"}
"""Those that a session gets only where it has a weaker one: `remote_apply` is stricter than ours, and PostgreSQL before
17 has no `transaction_timeout`."""
_MARK = {"sliceway.session": "direct"}
"""Sent with our options and read back: where it has not arrived, a pooler has dropped all of them."""
_COMPLETE = b"""
SELECT current_setting('sliceway.session', true)
UNION ALL
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('sliceway.session', true) = 'direct'
  AND current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
UNION ALL
SELECT set_config('transaction_timeout', '0', false)
WHERE current_setting('sliceway.session', true) = 'direct' AND current_setting('transaction_timeout', true) <> '0'"""
PLAN_ONCE = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_indexscan": "on",
    "enable_nestloop": "on",
}
"""For connections whose statements all go by an index. What is planned while the tables are empty must be right when
they are full; left to itself, the planner would read them whole."""
_ENVIRONMENT = ("PGDATESTYLE", "PGTZ", "PGGEQO")
"""What libpq sends from the environment after all else, and what no argument overrides."""
_NO_OPTIONS = "unsupported startup parameter"
"""The error of a pooler that refuses options; others drop them silently."""
POOLER_ADVICE = (
    "Set SLICEWAY_DATABASE_DIRECT_URL to PostgreSQL's own address, past the pooler, then run `sliceway migrate`."
)
_READ = b"SELECT name, current_setting(name, true) AS value FROM unnest(%s::text[]) AS name"


class UnexpectedPoolerError(psycopg.OperationalError):
    """A pooler answers where PostgreSQL itself was expected; `POOLER_ADVICE` is the next step.

    It takes no session settings, passes no NOTIFY, and may run each transaction in another session.
    """


def startup(url: str | DatabaseUrl, *, pooled: bool, plan_once: bool = False, **given: Any) -> dict[str, Any]:
    """Return what to connect with, as arguments of psycopg: the parts of the URL, and the session's settings.

    Args:
        url: where to.
        pooled: whether a pooler is there, which refuses options.
        plan_once: whether the session also gets `PLAN_ONCE`.
        given: other arguments of psycopg; they replace those of the URL.
    """
    _clear_environment()
    parts = DatabaseUrl.of(url)
    arguments = {**parts.keywords(), "connect_timeout": CONNECT_TIMEOUT_S, **given, "client_encoding": CLIENT_ENCODING}
    if pooled:
        return arguments
    ours = _MARK | PINNED | (PLAN_ONCE if plan_once else {})
    options = [_given_options(parts), *(f"-c {name}={_escaped(value)}" for name, value in ours.items())]
    return arguments | {"options": " ".join(filter(None, options))}


def opened(arguments: dict[str, Any], *, pooled: bool, opener: Callable[..., Any] = psycopg.connect) -> Any:
    """Open a session with what `startup` returned.

    Args:
        arguments: of ``opener``.
        pooled: as it was given to `startup`.
        opener: makes the connection.

    Raises:
        UnexpectedPoolerError: a pooler is there, and not `pooled`.
        psycopg.OperationalError: the database cannot be reached.
    """
    _clear_environment()
    try:
        connection = opener(**arguments)
    except psycopg.OperationalError as error:
        if _NO_OPTIONS in str(error):
            raise UnexpectedPoolerError(f"a pooler at {_place(arguments)} refuses the options of a session") from error
        raise
    if not pooled and not _complete(connection):
        connection.close()
        raise UnexpectedPoolerError(f"a pooler at {_place(arguments)} drops the options of a session")
    return connection


def unexpected_pooler(error: BaseException) -> UnexpectedPoolerError | None:
    """Return the pooler that led to an error, if one did: SQLAlchemy wraps what it meets."""
    return next((each for each in chain(error) if isinstance(each, UnexpectedPoolerError)), None)


def _place(arguments: dict[str, Any]) -> str:
    return ":".join(filter(None, (arguments.get("host"), arguments.get("port")))) or "the default address"


def _clear_environment() -> None:
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)


def _given_options(url: DatabaseUrl) -> str:
    """Return the options of the URL, else those that libpq finds by itself: in PGOPTIONS or in the service's file."""
    if (given := url.options.get("options")) is not None:
        return given
    found = next((each.val for each in Conninfo.get_defaults() if each.keyword == b"options"), None)
    return (found or b"").decode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _complete(connection: psycopg.Connection[Any]) -> bool:
    """Give a new direct session what depends on what it has: one round to the server, once a connection.

    Returns whether the session is direct; one of a pooler is left as it is.
    """
    before, connection.autocommit = connection.autocommit, True
    with connection.cursor(row_factory=scalar_row) as cursor:
        mark = cursor.execute(_COMPLETE, prepare=False).fetchone()
    connection.autocommit = before
    return bool(mark == _MARK["sliceway.session"])


def engine(
    url: str | DatabaseUrl,
    *,
    pooled: bool = False,
    plan_once: bool = False,
    opener: Callable[..., Any] = psycopg.connect,
    **options: Any,
) -> Engine:
    """Return SQLAlchemy's engine, whose connections have the session settings that the code relies on.

    Its own URL names the driver only: all else goes to psycopg as it is, and no error of SQLAlchemy's can show it.
    """
    arguments = startup(url, pooled=pooled, plan_once=plan_once, **options.pop("connect_args", {}))
    made = create_engine(_DRIVER, connect_args=arguments, **options)

    def connect(_dialect: object, _record: object, _words: object, given: dict[str, Any]) -> Any:
        return opened(given, pooled=pooled, opener=opener)

    event.listen(made, "do_connect", connect)
    return made


def wrong(connection: psycopg.Connection[Any]) -> dict[str, tuple[str, str]]:
    """Return what a session has otherwise than we need it: name -> (what it has, what it should have)."""
    wanted = {"client_encoding": CLIENT_ENCODING} | PINNED | CONDITIONAL
    there = read(connection, wanted)
    return {
        name: (there[name], value)
        for name, value in wanted.items()
        if name in there and not _satisfies(name, there[name], value)
    }


def read(connection: psycopg.Connection[Any], names: Iterable[str]) -> dict[str, str]:
    """Return the session's settings of these names, but for those that the server does not know."""
    rows = connection.execute(_READ, (list(names),)).fetchall()
    return {row["name"]: row["value"] for row in rows if row["value"] is not None}


def _satisfies(name: str, value: str, wanted: str) -> bool:
    if name == "DateStyle":
        return value.startswith("ISO")  # what follows is the order in which dates are read: ours need none
    if name == "synchronous_commit":
        return value in {"on", "remote_apply"}
    if name == "TimeZone":
        return value in {"UTC", "Etc/UTC", "GMT"}
    return value == wanted
