"""`sliceway limits show|set`, and what the doctor says of limits."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def admin(serving: Any, monkeypatch: Any) -> Any:
    """The command line with the key of an administrator."""
    assert serving("keys create --tenant ops --scope admin --name boss") == 0
    monkeypatch.setenv("SLICEWAY_API_KEY", serving.out.strip())
    return serving


@pytest.mark.parametrize("what", ["store:main", "tenant:acme"])
def test_it_is_set_shown_and_removed(admin: Any, what: str) -> None:
    shown = what.replace(":", " ")
    assert admin(f"limits set {what} --in-flight 4 --reason 'a busy link'") == 0
    assert admin.out == f"{shown}: at most 4 in flight\n"
    assert admin(f"limits set {what} --in-flight 4") == 0
    assert admin.out == f"{shown}: at most 4 in flight, as before\n"
    assert admin("limits show") == 0
    head, line = admin.out.splitlines()
    assert head.split() == ["KIND", "NAME", "IN", "FLIGHT", "SINCE", "BY", "REASON"]
    assert line.split()[:3] == [*shown.split(), "4"]
    assert line.endswith("key boss  a busy link")
    admin("doctor")
    [finding] = [line for line in admin.out.splitlines() if "in flight since" in line]
    assert finding.startswith("note ")
    assert "limited to 4" in finding
    assert "by boss: a busy link" in finding
    assert f"`sliceway limits set {what} --in-flight none`" in finding
    assert admin(f"limits set {what} --in-flight none --json") == 0
    assert json.loads(admin.out)["max_in_flight"] is None
    assert admin(f"limits set {what} --in-flight none") == 0
    assert admin.out == f"{shown}: no limit, as before\n"
    assert admin("limits show --json") == 0
    assert json.loads(admin.out) == []


def test_what_may_not_be_limited_is_refused(serving: Any) -> None:
    serving.fails("limits set store:main --in-flight 1", 1, "lacks the scope admin")
    serving.fails("limits set tenant:acme --in-flight 1", 1, "lacks the scope admin")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("main --in-flight 1", "neither store:NAME nor tenant:NAME"),
        ("queue:x --in-flight 1", "neither store:NAME nor tenant:NAME"),
        ("store: --in-flight 1", "neither store:NAME nor tenant:NAME"),
        ("store:main --in-flight 0", "neither a number from 1 on nor `none`"),
        ("store:main --in-flight -3", "neither a number from 1 on nor `none`"),
        ("store:main --in-flight many", "neither a number from 1 on nor `none`"),
        ("store:main", "--in-flight"),
    ],
)
def test_what_is_no_limit_is_refused(admin: Any, arguments: str, words: str) -> None:
    admin.fails(f"limits set {arguments}", 2, words)


def test_an_unknown_name_is_refused(admin: Any) -> None:
    admin.fails("limits set store:mian --in-flight 1", 1, "there is no store 'mian'")
    admin.fails("limits set tenant:amce --in-flight 1", 1, "there is no tenant 'amce'")
    admin.fails("limits set 'store:mian/../x' --in-flight 1", 1, "not")
