"""The statements as PREPARE and EXPLAIN (GENERIC_PLAN) take them, for a person with psql."""

from __future__ import annotations

import re

from worker.jobs.statements import written

_PARAMETER = re.compile(r"%\((\w+)\)s")
_BY_TYPE = {
    "uuid": "holder id job key_id worker",
    "uuid[]": "ids jobs steps",
    "bool": "abandon existed force ordered other_file reclaim restart_clock scratch slices_first",
    "int": "attempt changed epoch left most most_slices number per_lane priority refused slots total window",
    "int[]": "epochs held listed numbers",
    "bigint": "bytes_done low_speed sent_bytes size_bytes slice_bytes token whole_bytes",
    "float8": "abort_delay_s dead_after_s delay_s finish_lease_s forget_s init_lease_s known_for_s lead_s lease_s"
    " overdue_s probe_s slack_s window_s",
    "text": "action actor key_name kind left_open name person reason source store tenant version",
    "text[]": "blocked codes held_tenants keys known roots states stores targets",
    "timestamptz": "claimed_through before",
    "json": "claims leases slices",
    "jsonb": "cause digests error fingerprint hashing links profiles result sending session what",
}
_TYPES = {name: kind for kind, names in _BY_TYPE.items() for name in names.split()}
_OF_ONE = {("enqueue", "jobs"): "jsonb", ("retry", "fresh"): "bool[]"}
"""Parameters whose type is another one in another statement."""


def explainable(name: str) -> str:
    """Return a statement with `$1`, `$2`, …; a comment at its head names each parameter and its type.

    Raises:
        FileNotFoundError: there is no such statement.
    """
    text = written(name)
    parameters = list(dict.fromkeys(_PARAMETER.findall(text)))
    types = [_OF_ONE.get((name, parameter)) or _TYPES[parameter] for parameter in parameters]
    numbered = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", text).replace("%%", "%")
    named = "".join(
        f"-- ${number} {parameter} {kind}\n"
        for number, (parameter, kind) in enumerate(zip(parameters, types, strict=True), 1)
    )
    return named + numbered


def parameter_types(name: str) -> list[str]:
    """Return the types of a statement's parameters in their order."""
    return re.findall(r"^-- \$\d+ \w+ (\S+)$", explainable(name), re.MULTILINE)
