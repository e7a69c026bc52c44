"""`sliceway audit`, and when a key was used last."""

from __future__ import annotations

import getpass
import json
from typing import Any

from tests.integration.cli.conftest import until
from tests.integration.cli.test_commands import sql


def test_the_audit_shows_keys_and_actions(serving: Any, tmp_path: Any, monkeypatch: Any) -> None:
    assert serving(f"put {tmp_path / 'media/a.bin'} main:a --no-wait") == 0
    job = serving.out.strip()
    assert serving(f"jobs pause {job} --reason 'a disk is changed'") == 0
    assert serving("audit --json") == 0
    [pause] = json.loads(serving.out)
    assert (pause["action"], pause["what"], pause["reason"]) == ("job.pause", {"jobs": [job]}, "a disk is changed")
    assert serving("keys create --tenant acme --name old --json") == 0
    old = json.loads(serving.out)["id"]
    assert serving(f"keys revoke {old}") == 0
    assert serving(f"keys revoke {old}") == 0
    assert serving("keys create --tenant ops --scope admin --name boss") == 0
    monkeypatch.setenv("SLICEWAY_API_KEY", serving.out.strip())
    assert serving("audit --json --limit 4") == 0
    found = json.loads(serving.out)
    assert [(each["action"], each["changed"]) for each in found] == [
        ("key.create", 1), ("key.revoke", 0), ("key.revoke", 1), ("key.create", 1),
    ]  # fmt: skip
    assert all(each["actor"].startswith(f"user {getpass.getuser()} on ") for each in found)
    assert found[2]["what"]["key"] == old
    assert "key" not in {name for each in found for name in each["what"] if "slw_" in str(each["what"])}
    assert "There are more" in serving.err
    assert serving("audit") == 0
    head, *lines = serving.out.splitlines()
    assert head.split() == ["AT", "BY", "TENANT", "ACTION", "WHAT", "DONE", "REASON"]
    assert any(job in line and "job.pause" in line and "a disk is changed" in line for line in lines)


def test_the_last_use_of_a_key_is_shown(serving: Any, database_url: str) -> None:
    assert serving("keys list --json") == 0
    [key] = json.loads(serving.out)
    assert key["last_used_at"] is None
    assert serving("jobs list") == 0
    until(lambda: sql(database_url, "SELECT last_used_at FROM api_key")[0]["last_used_at"])
    assert serving("keys list --json") == 0
    [key] = json.loads(serving.out)
    assert key["last_used_at"].endswith("Z")
    assert serving("keys list") == 0
    assert key["last_used_at"] in serving.out
