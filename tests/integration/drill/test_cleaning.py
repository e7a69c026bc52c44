"""The clean-up of a drill reports what it could not remove, with a command, and leaves foreign objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from worker.client.api import Client
from worker.db.pool import Database
from worker.doctor.findings import Level
from worker.drill.cleaning import Cleaning
from worker.drill.report import Report
from worker.http.deadline import Deadline
from worker.ids import new_id
from worker.jobs.states import STEPS, JobState
from worker.stores.base import Intent
from worker.stores.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from worker.config.profiles import StoreProfile
    from worker.emulator.server import Emulator

DRILL, KEY = "fake1", "sliceway-drill/fake1-1"


class Scene:
    """A drill's rows and objects, an API that is away, and the report of the clean-up."""

    def __init__(self, database: Database, profile: StoreProfile, file: Path) -> None:
        self.database, self.store, self.file = database, open_store(profile), file
        self.report = Report(lambda _: None)

    def job(self, state: str) -> UUID:
        """Insert a job of the drill in this state."""
        made = new_id()
        with self.database.connection() as tx:
            tx.execute(
                "INSERT INTO job (id, tenant, state, step, priority, finished_at, source, store, key, target,"
                " overwrite, verify, retry_for_s, labels)"
                " VALUES (%s, 'acme', %s, %s, 0, CASE WHEN %s THEN now() END, '{}',"
                " 'main', %s, %s, false, 'auto', 60, %s)",
                (made, state, STEPS[JobState(state)][0], state == "succeeded", KEY, KEY, Jsonb({"drill": DRILL})),
            )
        return made

    def put(self, mark: str) -> None:
        """Put an object at the drill's key."""
        intent = Intent(KEY, 1, overwrite=True, attributes=None, mark=mark)
        self.store.put_whole(intent, memoryview(b"x"), Deadline(20))

    def clean(self) -> dict[str, list[str]]:
        """Run the clean-up; returns level -> reported lines."""
        away = Client(httpx.Client(base_url="http://127.0.0.1:1", trust_env=False))
        with away as client:
            Cleaning(DRILL, client, self.database, self.store, self.report, end_s=0.5).run(None, None, self.file)
        reported: dict[str, list[str]] = {}
        for step in self.report.steps:
            reported.setdefault(step.level, []).append(f"{step.check}: {step.text}; {step.advice}")
        return reported

    def there(self) -> Any:
        """The object at the drill's key."""
        return self.store.head(KEY, Deadline(20))


@pytest.fixture
def scene(database_url: str, emulator: Emulator, store_profile: StoreProfile, tmp_path: Path) -> Iterator[Scene]:
    assert emulator.url == str(store_profile.endpoint)
    database = Database(database_url, pool_size=1)
    (tmp_path / "file").touch()
    scene = Scene(database, store_profile, tmp_path / "file")
    yield scene
    scene.store.close()
    database.close()


def test_its_own_object_and_file_go(scene: Scene) -> None:
    job = scene.job("succeeded")
    scene.put(f"sliceway/{job}/1")
    reported = scene.clean()
    assert list(reported) == [Level.OK]
    assert (scene.there(), scene.file.exists()) == (None, False)


def test_a_foreign_object_stays_and_is_reported(scene: Scene) -> None:
    scene.job("succeeded")
    scene.put("sliceway/other/1")
    [line] = scene.clean()[Level.FAILED]
    assert f"an object that is not the drill's is at '{KEY}'" in line
    assert (scene.there().mark, scene.file.exists()) == ("sliceway/other/1", False)


def test_a_job_that_cannot_be_cancelled_is_named_with_the_command(scene: Scene) -> None:
    job = scene.job("queued")
    [line] = scene.clean()[Level.FAILED]
    assert line.startswith(f"left behind: job {job}: the API at http://127.0.0.1:1 cannot be reached")
    assert f"`sliceway jobs cancel {job}`" in line
    assert not scene.file.exists()


def test_a_slice_that_is_still_dispatched_is_reported(scene: Scene) -> None:
    job = scene.job("succeeded")
    with scene.database.connection() as tx:
        columns = "job_id, number, offset_bytes, size_bytes, state, token"
        tx.execute(f"INSERT INTO slice ({columns}) VALUES (%s, 0, 0, 1, 'dispatched', 1)", [job])  # noqa: S608 - from above
    [line] = scene.clean()[Level.FAILED]
    assert line.startswith("left behind: leases: 1 steps and slices are dispatched or leased")
