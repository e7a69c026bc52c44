"""What a failed test shows: rows, histories, the store's journal and the ends of the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.emulator.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.installation import Installation

_LINES = 60
_TABLES = {
    "jobs": """SELECT key, state, step, epoch, run, token, attempts, deaths, slices_left, paused_at, not_before, error,
               result, existed, session_losses FROM job ORDER BY id DESC LIMIT 12""",
    "slices": """SELECT j.key, s.number, s.state, s.token, s.worker, s.lease_until, s.not_before, s.attempts, s.deaths,
                 s.error FROM slice s JOIN job j ON j.id = s.job_id WHERE s.state <> 'done'
                 ORDER BY j.id DESC, s.number LIMIT 24""",
    "events": """SELECT j.key, e.at, e.kind, e.from_state, e.to_state, e.epoch, e.actor, e.cause
                 FROM event e JOIN job j ON j.id = e.job_id ORDER BY e.id DESC LIMIT 40""",
    "workers": 'SELECT name, id, heartbeat_at, ended_at, "end" FROM worker ORDER BY started_at DESC LIMIT 8',
    "breakers": "SELECT * FROM breaker",
    "leadership": "SELECT * FROM leadership",
    "now": "SELECT now()",
}
_NOISE = ("logger=celery.bootsteps", "MAINT_NOTIFICATIONS", "TaskPool: Apply")
_ENTRY = "number op path offset size status code effect faults state"


def evidence(site: Installation) -> str:
    """Return it all as text."""
    lines: list[str] = []
    for name, query in _TABLES.items():
        lines += [f"== {name}", *_safely(_table, site, query)]
    lines += ["== journal", *_safely(_journal, site)]
    for log in site.logs()[:4]:
        text = log.read_text(errors="replace")
        logged = [line for line in text.splitlines() if not any(noise in line for noise in _NOISE)]
        lines += [f"== {log.name}", *(_short(line) for line in logged[-_LINES:])]
    return "\n".join(lines)


def _safely(show: Callable[..., Iterator[str]], *of: object) -> list[str]:
    try:
        return list(show(*of))
    except (Exception, ControlError) as error:  # noqa: BLE001 - a server may be down, and that is evidence too
        return [f"(not to be had: {error})"]


def _table(site: Installation, query: str) -> Iterator[str]:
    for row in site.sql(query):
        yield "  ".join(f"{name}={_short(value)}" for name, value in row.items() if value is not None)


def _journal(site: Installation) -> Iterator[str]:
    for entry in site.store.requests()[-80:]:
        yield "  ".join(f"{name}={entry[name]}" for name in _ENTRY.split() if entry[name] not in (None, []))


def _short(value: Any) -> str:
    text = value.strftime("%H:%M:%S.%f") if hasattr(value, "strftime") else str(value)
    return text if len(text) <= 300 else text[:300] + "…"
