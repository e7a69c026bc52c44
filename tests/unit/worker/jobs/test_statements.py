"""The statements' fragments: what several of them must share to the letter stands once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from worker.jobs import states
from worker.jobs.process_models import Base
from worker.jobs.statements import FRAGMENTS, expand, names, sql
from worker.jobs.states import DUE_STEP, JobState

FOLDER = Path(__file__).parents[4] / "worker/jobs/sql"
WRITTEN = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.sql"))}


def test_every_statement_is_expanded() -> None:
    assert names() == sorted(WRITTEN)
    for name in names():
        assert "/*:" not in sql(name), name


def test_the_server_gets_the_name_first_and_then_the_verb() -> None:
    for name in names():
        start, verb = sql(name).split(" */ ")[0], sql(name).split(" */ ")[1].split()[0]
        assert (start, verb in {"WITH", "SELECT", "UPDATE", "INSERT", "DELETE"}) == (f"/* {name}", True)


def test_an_unknown_fragment_cannot_be_loaded() -> None:
    with pytest.raises(KeyError, match="nothing_of_ours"):
        expand("SELECT /*: nothing_of_ours :*/")


def test_no_fragment_names_another() -> None:
    assert not [name for name, text in FRAGMENTS.items() if "/*:" in text]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_is_used_and_written_out_nowhere(fragment: str) -> None:
    users = [name for name, text in WRITTEN.items() if f"/*: {fragment} :*/" in text]
    assert users, "delete it"
    written_out = re.compile(r"\s+".join(map(re.escape, FRAGMENTS[fragment].split())))
    assert [name for name, text in WRITTEN.items() if written_out.search(text)] == []


def test_a_list_of_three_states_and_more_is_a_fragment() -> None:
    word = "|".join(JobState)
    lists = re.compile(rf"IN \('(?:{word})'(?:, '(?:{word})'){{2,}}")
    assert {name: lists.findall(text) for name, text in WRITTEN.items() if lists.search(text)} == {}


def test_the_index_of_due_steps_has_the_statements_condition() -> None:
    (index,) = [index for index in Base.metadata.tables["job"].indexes if index.name == "ix_job_due_step"]
    assert str(index.dialect_options["postgresql"]["where"]) == DUE_STEP == FRAGMENTS["due_step"]


def test_the_lists_of_states_agree() -> None:
    assert set(states.ACTIVE) | {JobState.CANCELLING} == set(states.LIVE)
    assert set(states.LIVE) | set(states.FINAL) == set(JobState)
    assert set(states.WITH_A_STEP) < set(states.LIVE)
    assert set(states.OF_INIT) < set(states.WITH_A_STEP)
