"""`sliceway stores|tenants|queue pause|resume`, `sliceway holds`, and what the doctor says of them."""

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


@pytest.mark.parametrize("what", ["stores {} main", "tenants {} acme", "queue {}"])
def test_it_is_held_listed_and_released(admin: Any, what: str) -> None:
    group, *name = what.replace("{}", "").split()
    shown = " ".join([group.removesuffix("s"), *name])
    assert admin(what.format("pause") + " --reason 'a disk is changed'") == 0
    assert admin.out == f"{shown} paused\n"
    assert admin(what.format("pause")) == 0
    assert admin.out == f"{shown} was paused already\n"
    assert admin("holds") == 0
    head, line = admin.out.splitlines()
    assert head.split() == ["KIND", "NAME", "SINCE", "BY", "REASON"]
    assert line.startswith(group.removesuffix("s"))
    assert line.endswith("key boss  a disk is changed")
    admin("doctor")
    [finding] = [line for line in admin.out.splitlines() if "paused since" in line]
    assert finding.startswith("note ")
    assert "by boss: a disk is changed" in finding
    assert f"`sliceway {what.format('resume')}`" in finding
    assert admin(what.format("resume") + " --json") == 0
    assert json.loads(admin.out)["paused"] is False
    assert admin(what.format("resume")) == 0
    assert admin.out == f"{shown} was not paused already\n"
    assert admin("holds --json") == 0
    assert json.loads(admin.out) == []
    admin("doctor")
    assert "paused since" not in admin.out


def test_what_may_not_or_cannot_be_held_is_refused(serving: Any) -> None:
    serving.fails("stores pause main", 1, "lacks the scope admin")
    serving.fails("queue pause", 1, "lacks the scope admin")
    serving.fails("tenants pause umbrella", 1, "lacks the scope admin")
    assert serving("tenants pause acme") == 0
    assert serving("tenants resume acme") == 0


def test_an_unknown_name_is_refused(admin: Any) -> None:
    admin.fails("stores pause 'mian/../x'", 1, "not")
    admin.fails("stores pause mian", 1, "there is no store 'mian'")
    admin.fails("tenants pause nobody", 1, "there is no tenant 'nobody'")
