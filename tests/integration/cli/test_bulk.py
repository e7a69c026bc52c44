"""The commands `jobs actions ...`."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

from worker.config.settings import load_settings
from worker.db.pool import Database
from worker.maintenance.bulk import BulkActions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cli.conftest import CommandLine


def carry_out() -> None:
    """Do what the leader does."""
    with closing(Database(os.environ["SLICEWAY_DATABASE_URL"])) as database, database.connection() as tx:
        BulkActions(load_settings()).run(tx, lambda: True)


def test_an_action_is_counted_confirmed_followed_and_listed(serving: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "media/a.bin"
    for number in range(3):
        assert serving(f"put {file} main:k{number} --no-wait --label order={number % 2}") == 0
    assert serving("jobs actions pause --label order=0 --dry-run") == 0
    assert serving.out.startswith("2 jobs match label.order=0&tenant=acme\n")
    assert "main:k0" in serving.out
    assert "--confirm 2" in serving.err
    assert serving("jobs actions pause --label order=0 --dry-run --json") == 0
    assert (json.loads(serving.out)["count"], len(json.loads(serving.out)["sample"])) == (2, 2)
    serving.fails("jobs actions pause --label order=0 --confirm 3", 1, "2 jobs match, and 3 were confirmed", "dry run")
    assert serving("jobs actions pause --label order=0 --confirm 2 --reason 'a fault' --json") == 0
    made = json.loads(serving.out)
    assert (made["state"], made["total"], made["reason"]) == ("running", 2, "a fault")
    carry_out()
    assert serving(f"jobs actions show {made['id']} --wait") == 0
    assert serving.out == f"{made['id']} pause done: 2 of 2 jobs, 2 changed, 0 refused\n"
    assert serving("jobs actions list") == 0
    assert [serving.out.split()[0], made["id"] in serving.out, "2/2" in serving.out] == ["ID", True, True]
    assert serving("jobs actions list --json") == 0
    assert [each["id"] for each in json.loads(serving.out)] == [made["id"]]


def test_a_stop_and_what_was_refused_are_printed(serving: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "media/a.bin"
    assert serving(f"put {file} main:k --no-wait --json") == 0
    job = json.loads(serving.out)["id"]
    assert serving(f"jobs cancel {job}") == 0
    assert serving("jobs actions priority --state cancelled --to 1 --confirm 1 --json") == 0
    made = json.loads(serving.out)
    assert made["options"] == {"priority": 1}
    assert serving(f"jobs actions stop {made['id']} --reason oops") == 0
    assert serving.out == f"{made['id']} priority stopped: 0 of 1 jobs, 0 changed, 0 refused\n"
    assert serving("jobs actions retry --state cancelled --confirm 1 --json") == 0
    carry_out()
    assert serving("jobs actions retry --store main --confirm 1 --from-scratch --json") == 0
    assert json.loads(serving.out)["options"] == {"from": "scratch"}
    carry_out()
    assert serving("jobs actions pause --store main --confirm 1") == 0
    carry_out()
    assert serving("jobs actions retry --store main --confirm 1 --from-scratch --json") == 0
    made = json.loads(serving.out)
    carry_out()
    assert serving(f"jobs actions show {made['id']}") == 0
    assert serving.out.splitlines()[1:] == [
        "  not_retryable: 1 refused", f"    {job}: job {job} is paused, and not ended",
    ]  # fmt: skip


def test_wrong_usage_is_one_line(serving: CommandLine) -> None:
    serving.fails("jobs actions pause --state queued", 2, "either --dry-run or --confirm N")
    serving.fails("jobs actions pause --state queued --dry-run --confirm 1", 2, "either --dry-run or --confirm N")
    serving.fails("jobs actions pause --dry-run", 1, "the filter has no condition")
    serving.fails("jobs actions priority --state queued --dry-run", 2, "--to")
    serving.fails(f"jobs actions show {uuid4()}", 1, "there is no bulk action")
    serving.fails(f"jobs actions stop {uuid4()}", 1, "there is no bulk action")
