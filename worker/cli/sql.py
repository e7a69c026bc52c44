"""The command `sql`: the engine's statements, for a person who wants to see their plan."""

from __future__ import annotations

import click

from worker.cli.output import json_option, print_json


@click.command("sql")
@click.argument("name", required=False)
@json_option
def print_sql(name: str | None, as_json: bool) -> None:
    """Print a statement as PREPARE and EXPLAIN (GENERIC_PLAN) take it; without NAME, the names of all."""
    from worker.jobs.explainable import explainable, parameter_types  # noqa: PLC0415 - `--help` does not need it
    from worker.jobs.statements import names  # noqa: PLC0415

    if name is None:
        if as_json:
            print_json(names())
        else:
            click.echo("\n".join(names()))
        return
    if name not in names():
        raise click.BadParameter(f"there is no statement {name!r}. `sliceway sql` lists them.", param_hint="NAME")
    text = explainable(name)
    if as_json:
        print_json({"name": name, "parameter_types": parameter_types(name), "sql": text})
    else:
        click.echo(text.rstrip("\n"))
