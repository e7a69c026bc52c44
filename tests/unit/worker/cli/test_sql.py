"""`sliceway sql`: the statements of the engine, to be explained by hand."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from worker.cli.main import cli
from worker.jobs.statements import names


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sql", *arguments])


def test_without_a_name_it_lists_all() -> None:
    assert run().stdout.split() == names()
    assert json.loads(run("--json").stdout) == names()


def test_a_statement_names_its_parameters_and_has_no_fragment_left() -> None:
    lines = run("note").stdout.splitlines()
    assert lines[:3] == ["-- $1 job uuid", "-- $2 epoch int", "-- $3 token bigint"]
    assert "WHERE epoch = $2 AND token = $3 AND worker = $4 AND step = 'running'" in "\n".join(lines)
    document = json.loads(run("note", "--json").stdout)
    assert document["name"] == "note"
    assert document["parameter_types"] == ["uuid", "int", "bigint", "uuid", "text", "text", "jsonb"]


def test_an_unknown_name_is_wrong_usage() -> None:
    result = run("nothing")
    assert result.exit_code == 2
    assert "there is no statement 'nothing'" in result.stderr
