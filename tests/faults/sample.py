"""A small correct run with an example of everything: the test plants contradictions into its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.checker import Report, check, install
from tests.faults.history import Recorder, Source
from tests.faults.store_contents import EmulatorFolder
from tests.support.job import JobSpec
from tests.support.store import BUCKET, SECRET_KEY, SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    import httpx

    from tests.support.installation import Installation

Row = dict[str, Any]
SMALL_BYTES = 1000


class Run:
    """An installation, one client with a recorder, and its jobs by their keys."""

    def __init__(self, site: Installation) -> None:
        """Let the database record its changes; it must have no jobs."""
        install(site.database.url)
        self.site, self.file = site, site.folder / "recorded.jsonl"
        self.recorder = Recorder(self.file)
        self.ids: dict[str, str] = {}

    def play(self) -> None:
        """Play everything, and wait until all jobs have ended."""
        self.site.workers(2)
        self._plant()
        for slices, key in ((4, "plain"), (3, "replaced"), (1, "taken"), (3, "again")):
            self.submit(key, slices * SLICE_BYTES - 100, overwrite=key == "replaced")
        self.submit("small", SMALL_BYTES)
        self.submit("once", SMALL_BYTES, name="the-one")
        self.submit("once", SMALL_BYTES, name="the-one")
        self._lose_answer()
        self._lapse()
        self._cancel()
        self._lose_session()
        self._retry()
        self.site.until(self._all_ended, "the end of all jobs")
        for id_ in self.ids.values():
            self.read(id_)
        self.recorder.close()

    def report(self) -> Report:
        """Check the run."""
        return check(
            self.site.database.url,
            recorded=[self.file],
            journals=[self.site.store.journal],
            contents=EmulatorFolder(self.site.folder / "data", BUCKET),
            secrets=[SECRET_KEY],
        )

    def submit(
        self, key: str, size_bytes: int, *, source: Source | None = None, name: str | None = None, **fields: Any
    ) -> httpx.Response:
        """Submit a job; ``name`` is the idempotency key."""
        if source is None:
            self.site.file(key, size_bytes)
            source = Source.of(self.site.media / key)
        document = JobSpec(key, key, fields).document
        if size_bytes > SMALL_BYTES:
            document["slice_size"] = SLICE_BYTES
        headers = {} if name is None else {"Idempotency-Key": name}
        with self.recorder.submitting(document, source, idempotency_key=name) as pending:
            answer = pending.record(self.site.api.post("/v1/jobs", json=document, headers=headers).raise_for_status())
        self.ids[key] = answer.json()["id"]
        return answer

    def read(self, job: str) -> str:
        """Read a job's state."""
        with self.recorder.reading(job) as pending:
            return str(pending.record(self.site.api.get(f"/v1/jobs/{job}")).json()["state"])

    def _plant(self) -> None:
        for key in ("taken", "replaced", "untouched"):
            content = f"foreign {key}".encode()
            with self.recorder.planting_object(key, content) as pending:
                self.site.store.plant_object(key, content)
                pending.answered(200)
        with self.recorder.planting_upload("elsewhere") as pending:
            pending.answered(200, session=self.site.store.plant_upload("elsewhere", SLICE_BYTES))

    def _lose_answer(self) -> None:
        """A submit has its effect, and its answer is lost."""
        self.site.file("unheard", SMALL_BYTES)
        document = JobSpec("unheard", "unheard").document
        with self.recorder.submitting(document, Source.of(self.site.media / "unheard")):
            self.ids["unheard"] = self.site.api.post("/v1/jobs", json=document).raise_for_status().json()["id"]

    def _lapse(self) -> None:
        """The store delays a slice and its worker is killed: another worker sends it again, then the first one arrives.

        No other job runs at that time, so that the death is in no other job's history.
        """
        self.site.until(self._all_ended, "the end of the jobs before")
        store = self.site.store
        store.hold("data", "lapsed", offset=0, count=1)
        release = store.hold("finish", "lapsed")
        self.submit("lapsed", SLICE_BYTES)
        self.site.until(lambda: store.requests(op="data", path="lapsed", offset=0, state="held"), "a send that is held")
        [held] = store.requests(op="data", path="lapsed", offset=0, state="held")
        self.site.worker_named(self._slice("lapsed")["name"]).kill()
        self.site.until(lambda: self._slice("lapsed")["state"] == "done", "a checkpoint by another worker")
        store.control.release(held["number"])
        self.site.until(lambda: store.requests(number=held["number"], effect=0), "the first send's effect")
        release()

    def _cancel(self) -> None:
        release = self.site.store.hold("data", "cancelled", offset=0)
        self.submit("cancelled", 3 * SLICE_BYTES)
        self.site.store.held("data", "cancelled")
        with self.recorder.cancelling(self.ids["cancelled"]) as pending:
            pending.record(self.site.api.post(f"/v1/jobs/{self.ids['cancelled']}/cancel"))
        release()

    def _lose_session(self) -> None:
        self.site.store.control.add_rule("lose_session", op="data", path="lost", nth=2, count=1)
        self.submit("lost", 3 * SLICE_BYTES)

    def _retry(self) -> None:
        """A job fails because its file is missing; the file returns, and the client retries the job."""
        file, away = self.site.media / "late", self.site.media / "away"
        self.site.file("late", 2 * SLICE_BYTES)
        file.rename(away)
        self.submit("late", 2 * SLICE_BYTES, source=Source(str(file), Source.of(away).sha1, 2 * SLICE_BYTES))
        job = self.ids["late"]
        self.site.until(lambda: self._state("late") == "failed", "a failure")
        self.read(job)
        away.rename(file)
        with self.recorder.retrying(job) as pending:
            pending.record(self.site.api.post(f"/v1/jobs/{job}/retry"))

    def _all_ended(self) -> bool:
        rows = self.site.sql("SELECT state FROM job")
        return len(rows) == len(self.ids) and all(row["state"] in FINAL for row in rows)

    def _state(self, key: str) -> str:
        [row] = self.site.sql("SELECT state FROM job WHERE key = %(key)s", key=key)
        return str(row["state"])

    def _slice(self, key: str) -> Row:
        """The state of a job's first slice, and the name of its worker."""
        [row] = self.site.sql(
            """SELECT s.state, w.name FROM job j JOIN slice s ON s.job_id = j.id LEFT JOIN worker w ON w.id = s.worker
               WHERE j.key = %(key)s AND s.number = 0""",
            key=key,
        )
        return row
