"""The commands for operators of an installation: `keys`, `stores`, `migrate` and `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from worker.cli.output import Columns, finding_line, json_option, print_json, print_table
from worker.cli.stores_reload import reload_stores
from worker.errors import SettingsError, SlicewayError
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from worker.config.settings import Settings
    from worker.jobs.api_keys import ApiKey

_SCOPES = ("submit", "read", "operate", "admin")  # of `worker.jobs.api_keys`, whose import would slow `--help` down
_KEYS = Columns(
    ("ID", "TENANT", "SCOPES", "NAME", "CREATED", "REVOKED", "USED"),
    ("ID", "TENANT", "REVOKED", "NAME", "SCOPES", "USED", "CREATED"),
)


def _settings() -> Settings:
    from worker.client.environment import environment, settings_here  # noqa: PLC0415 - `--help` does not need it

    return settings_here(environment())


@click.command()
def migrate() -> None:
    """Bring the database up to date. Several at once run one after the other."""
    from worker.client.environment import database_of  # noqa: PLC0415
    from worker.db.upgrade import update  # noqa: PLC0415

    settings = _settings()
    with database_of(settings):
        done = update(settings.database_url, settings.database_direct_url)
    click.echo(f"Migrated: {', '.join(done.migrations)}." if done.migrations else "The database is up to date.")
    if done.role is not None:
        click.echo(
            f"Set the session settings of role {done.role}; the pooler's open connections lack them until it"
            " opens them anew (PgBouncer: RECONNECT)."
        )


@click.group()
def keys() -> None:
    """Create, list and revoke API keys, in the database directly."""


@keys.command("create")
@click.option("--tenant", required=True, help="Tenant whose jobs the key enqueues and sees.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(_SCOPES),
    default=("submit", "read", "operate"),
    show_default=True,
    help="May be given several times; admin is all of them, on every tenant's jobs.",
)
@click.option("--name", help="Name that distinguishes the key; the tenant's name if not given.")
@json_option
def create(tenant: str, scopes: Sequence[str], name: str | None, *, as_json: bool) -> None:
    """Create a key and print it. It is printed once: the database holds only its digest."""
    from worker.client.environment import database_of  # noqa: PLC0415
    from worker.jobs import audit  # noqa: PLC0415
    from worker.jobs.api_keys import Scope, create_key  # noqa: PLC0415
    from worker.jobs.audit import Actor, os_user  # noqa: PLC0415

    with database_of(_settings()) as database, database.transaction() as tx:
        key, text = create_key(tx, tenant, [Scope(scope) for scope in scopes], name)
        audit.record_key(tx, Actor(os_user()), "create", key)
    if as_json:
        print_json(_document(key) | {"key": text})
    else:
        click.echo(text)


@keys.command("list")
@click.option("--tenant", help="Only keys of this tenant.")
@json_option
def list_all(tenant: str | None, *, as_json: bool) -> None:
    """List keys, revoked ones too."""
    from worker.client.environment import database_of  # noqa: PLC0415
    from worker.db.repetition import run_idempotent  # noqa: PLC0415
    from worker.jobs.api_keys import list_keys  # noqa: PLC0415

    with database_of(_settings()) as database:
        found = [_document(key) for key in run_idempotent(database, lambda tx: list_keys(tx, tenant))]
    if as_json:
        print_json(found)
    else:
        rows = [
            tuple(str(value or "") for value in (key | {"scopes": " ".join(key["scopes"])}).values()) for key in found
        ]
        print_table(_KEYS, rows)


@keys.command("revoke")
@click.argument("key_id", type=click.UUID)
@json_option
def revoke(key_id: uuid.UUID, *, as_json: bool) -> None:
    """Revoke a key: every API process refuses it within seconds."""
    from worker.client.environment import database_of  # noqa: PLC0415
    from worker.db.repetition import run_idempotent  # noqa: PLC0415
    from worker.jobs.audit import Actor, os_user, revoke_key  # noqa: PLC0415

    with database_of(_settings()) as database:
        # it keeps the time of the first revoke
        key = run_idempotent(database, lambda tx: revoke_key(tx, key_id, Actor(os_user())))
    if as_json:
        print_json(_document(key))
    else:
        click.echo(f"{key.id} revoked")


def _document(key: ApiKey) -> dict[str, Any]:
    def moment(at: Any) -> str | None:
        return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    return {
        "id": str(key.id),
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "name": key.name,
        "created_at": moment(key.created_at),
        "revoked_at": moment(key.revoked_at),
        "last_used_at": moment(key.last_used_at),
    }


@click.group()
def stores() -> None:
    """Check, hold and release the stores of the stores file, or have all processes read it again."""


@stores.command("check")
@click.argument("names", nargs=-1)
@json_option
def check(names: Sequence[str], *, as_json: bool) -> None:
    """Prove with a harmless request that each store (or each NAME) is usable with its profile."""
    from worker.doctor.examine import examine_stores  # noqa: PLC0415
    from worker.doctor.findings import Level  # noqa: PLC0415

    profiles = _settings().profiles
    if unknown := sorted(set(names) - set(profiles.stores)):
        known = ", ".join(profiles.stores) or "none"
        raise SettingsError(f"there is no store {unknown[0]!r}", advice=f"There are: {known}.")
    found = examine_stores([profiles.stores[name] for name in names or profiles.stores])
    _report(found, as_json=as_json)
    if any(finding.level is Level.FAILED for finding in found):
        raise SlicewayError("not every store can be used", code="check_failed", advice="See the lines above.")


stores.add_command(reload_stores)


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Check everything that an installation needs. Each line says whether it is right or what to do."""
    from worker.doctor.examine import examine  # noqa: PLC0415
    from worker.doctor.findings import Finding, Level  # noqa: PLC0415

    try:
        found = examine(_settings())
    except SettingsError as error:
        found = [Finding("settings", Level.FAILED, error.message, "Correct it; nothing else can be checked before.")]
    _report(found, as_json=as_json)
    if failed := sum(finding.level is Level.FAILED for finding in found):
        raise SlicewayError(
            f"{failed} of {len(found)} checks failed", code="check_failed", advice="See what to do above."
        )


def _report(found: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        print_json(redact_json([asdict(finding) for finding in found]))
        return
    width = max((len(finding.check) for finding in found), default=0)
    for finding in found:
        click.echo(finding_line(finding, width))
