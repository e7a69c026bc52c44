"""The SQL statements of `sql/`, by name, with their fragments expanded.

A fragment is `/*: name :*/` in a statement: a list of states that `states.py` knows, or a condition that several
statements must share to the letter. Fragments have no arguments and do not nest. A statement that names an unknown
fragment cannot be loaded.

What the server gets begins with the statement's name in a comment, for `pg_stat_activity`, logs and traces. The comment
at the head of the file is left out: instrumentation of psycopg takes the first word for the name of its span.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, LiteralString

from worker.jobs.states import ACTIVE, DUE_STEP, FINAL, OF_INIT, SLICES_IN_FLIGHT, SLICES_MAY_START, WITH_A_STEP

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = re.compile(r"\A(?:--.*\n)+")
_FRAGMENT = re.compile(r"/\*: (\w+) :\*/")


def _listed(states: Iterable[str]) -> str:
    return ", ".join(f"'{state}'" for state in states)


FRAGMENTS: Final = {
    "final_states": _listed(FINAL),
    "states_before_the_end": _listed(ACTIVE),
    "states_of_init": _listed(OF_INIT),
    "states_with_a_step": _listed(WITH_A_STEP),
    "slices_in_flight": _listed(SLICES_IN_FLIGHT),
    # the guard of a step's holder, on the job's row
    "holds_step": "epoch = %(epoch)s AND token = %(token)s AND worker = %(worker)s AND step = 'running'",
    "due_step": DUE_STEP,
    "slices_may_start": SLICES_MAY_START,
    # whether a due step sends bytes of the file: an init sends a small one; a larger one only asks for a session
    "step_carries": "state = 'queued' AND session IS NULL AND coalesce(size_bytes, 0) <= %(whole_bytes)s",
    # of a cancelled job: whether its abort goes out although the store's breaker is open; see due_aborts.sql
    "abort_ignores_breaker": """state = 'cancelling'
    AND (session IS NULL OR store <> ALL(%(known)s::text[]) OR updated_at < now() - make_interval(hours => 24))""",
    # the jobs that a command names and that its tenant (NULL: any) sees, locked in the order of their ids; in a SELECT,
    # the planner does not see how many they are, and one plan serves all sets
    "jobs_of_a_command": """(
    SELECT * FROM job
    WHERE id = ANY((SELECT %(jobs)s::uuid[])::uuid[]) AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    ORDER BY id OFFSET 0 FOR NO KEY UPDATE
  ) AS job""",
    # a hold `h` is one of the job `j`
    "hold_covers": """(h.kind = 'queue' OR h.kind = 'store' AND h.name = j.store
      OR h.kind = 'tenant' AND h.name = j.tenant)""",
    # a claim that has ended
    "released": "worker = NULL, lease_until = NULL",
    # a cancelled job lets go of its step: the dispatcher dispatches the abort when all claims have ended. State and
    # `finished_at` are those of the locked row; the constraints are checked on the older row of the snapshot first.
    "lets_go": "state = 'cancelling', step = 'idle', finished_at = NULL, worker = NULL, lease_until = NULL",
    # a step goes back, to be dispatched again; the locked row is `p`
    "step_goes_back": """state = CASE p.state WHEN 'initializing' THEN 'queued' ELSE p.state END,
    step = CASE p.state WHEN 'cancelling' THEN 'idle' ELSE 'pending' END, worker = NULL, lease_until = NULL""",
    # the columns of `rows.Dispatched`, of job rows `j` and slice rows `s`
    "message_of_a_step": """j.id AS job_id, NULL::int AS number, j.token, j.epoch, j.run, j.state, j.store, j.key,
    j.deaths, NULL::bigint AS offset_bytes, NULL::int AS slice_size_bytes, j.slices_total,
    j.traceparent""",
    "message_of_a_slice": """s.job_id, s.number, s.token, j.epoch, j.run, j.state, j.store, j.key, s.deaths,
       s.offset_bytes, s.size_bytes, j.slices_total, j.traceparent""",
}


def texts() -> frozenset[str]:
    """Return all statements, for connections that keep a cursor for each."""
    return frozenset(_statements().values())


def names() -> list[str]:
    """Return the names of all statements."""
    return sorted(_statements())


def sql(name: str) -> LiteralString:
    """Return the statement in `worker/jobs/sql/<name>.sql` as the server gets it."""
    return _statements()[name]


def written(name: str) -> LiteralString:
    """Return the same with the comment at its head, for a reader."""
    return expand((files("worker.jobs") / "sql" / f"{name}.sql").read_text())


def expand(text: str) -> LiteralString:
    """Return a statement's text with its fragments.

    Raises:
        KeyError: it names a fragment that there is not.
    """
    return _FRAGMENT.sub(lambda found: FRAGMENTS[found[1]], text)


@functools.cache
def _statements() -> dict[str, LiteralString]:
    """Read all of them at once: one that is needed first when no file can be opened any more must be there."""
    found = (files("worker.jobs") / "sql").iterdir()
    read = {Path(each.name).stem: each.read_text() for each in found if each.name.endswith(".sql")}
    return {name: f"/* {name} */ {_HEAD.sub('', expand(text))}" for name, text in read.items()}
