"""A small run with something of everything in it, all of it well: what the checker is tried on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.checker import Report, check, install
from tests.faults.history import Recorder, Source
from tests.faults.stored import Folder
from tests.support.store import BUCKET, SECRET_KEY, SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    import httpx

    from tests.support.installation import Installation

Row = dict[str, Any]


SMALL_BYTES = 1000


class Run:
    """An installation, one client that writes down what it does, and the jobs that it asks for by their keys."""

    def __init__(self, site: Installation) -> None:
        """Let the database write down its changes; nobody may have worked on it."""
        install(site.database.url)
        self.site, self.file = site, site.folder / "recorded.jsonl"
        self.recorder = Recorder(self.file)
        self.ids: dict[str, str] = {}

    def play(self) -> None:
        """Do it all, and wait until all has ended."""
        self.site.workers(2)
        self._strangers()
        for slices, key in ((4, "plain"), (3, "replaced"), (1, "taken"), (3, "again")):
            self.submit(key, slices * SLICE_BYTES - 100, overwrite=key == "replaced")
        self.submit("small", SMALL_BYTES)
        self.submit("once", SMALL_BYTES, name="the-one")
        self.submit("once", SMALL_BYTES, name="the-one")
        self._not_hear()
        self._lapse()
        self._cancel()
        self._lose()
        self._retry()
        self.site.until(self._over, "the end of all jobs")
        for id_ in self.ids.values():
            self.read(id_)
        self.recorder.close()

    def report(self) -> Report:
        """Judge the run."""
        return check(
            self.site.database.url,
            recorded=[self.file],
            journals=[self.site.store.journal],
            stored=Folder(self.site.folder / "data", BUCKET),
            secrets=[SECRET_KEY],
        )

    def submit(
        self, key: str, size_bytes: int, *, source: Source | None = None, name: str | None = None, **wish: Any
    ) -> httpx.Response:
        """Ask for a job, under an idempotency key if it is given a name."""
        if source is None:
            self.site.file(key, size_bytes)
            source = Source.of(self.site.media / key)
        document = {"source": {"kind": "file", "root": "media", "path": key}, "store": "main", "key": key, **wish}
        if size_bytes > SMALL_BYTES:
            document["slice_size"] = SLICE_BYTES
        headers = {} if name is None else {"Idempotency-Key": name}
        with self.recorder.submitting(document, source, idempotency_key=name) as asked:
            answer = asked.heard(self.site.api.post("/v1/jobs", json=document, headers=headers).raise_for_status())
        self.ids[key] = answer.json()["id"]
        return answer

    def read(self, job: str) -> str:
        """Ask where a job stands."""
        with self.recorder.reading(job) as asked:
            return str(asked.heard(self.site.api.get(f"/v1/jobs/{job}")).json()["state"])

    def _strangers(self) -> None:
        for key in ("taken", "replaced", "untouched"):
            content = f"somebody's {key}".encode()
            with self.recorder.planting_object(key, content) as asked:
                self.site.store.plant_object(key, content)
                asked.told(200)
        with self.recorder.planting_upload("elsewhere") as asked:
            asked.told(200, session=self.site.store.plant_upload("elsewhere", SLICE_BYTES))

    def _not_hear(self) -> None:
        """A submit is done, and its answer lost on the way."""
        self.site.file("unheard", SMALL_BYTES)
        source = {"kind": "file", "root": "media", "path": "unheard"}
        document = {"source": source, "store": "main", "key": "unheard"}
        with self.recorder.submitting(document, Source.of(self.site.media / "unheard")):
            self.ids["unheard"] = self.site.api.post("/v1/jobs", json=document).raise_for_status().json()["id"]

    def _lapse(self) -> None:
        """A slice is sent and held up, and its worker killed: another sends it again, then the first arrives too.

        Nothing else is being worked on then, so that the death is in no other job's history.
        """
        self.site.until(self._over, "the end of the jobs before")
        store = self.site.store
        store.hold("data", "lapsed", offset=0, count=1)
        let_go = store.hold("finish", "lapsed")
        self.submit("lapsed", SLICE_BYTES)
        self.site.until(lambda: store.requests(op="data", path="lapsed", offset=0, state="held"), "a send that is held")
        [held] = store.requests(op="data", path="lapsed", offset=0, state="held")
        self.site.worker_named(self._slice("lapsed")["name"]).kill()
        self.site.until(lambda: self._slice("lapsed")["state"] == "done", "a checkpoint by another worker")
        store.control.release(held["number"])
        self.site.until(lambda: store.requests(number=held["number"], effect=0), "the first send's effect")
        let_go()

    def _cancel(self) -> None:
        let_go = self.site.store.hold("data", "cancelled", offset=0)
        self.submit("cancelled", 3 * SLICE_BYTES)
        self.site.store.held("data", "cancelled")
        with self.recorder.cancelling(self.ids["cancelled"]) as asked:
            asked.heard(self.site.api.post(f"/v1/jobs/{self.ids['cancelled']}/cancel"))
        let_go()

    def _lose(self) -> None:
        self.site.store.control.add_rule("lose_session", op="data", path="lost", nth=2, count=1)
        self.submit("lost", 3 * SLICE_BYTES)

    def _retry(self) -> None:
        """A job fails because its file is not there; then it is, and the job is tried again."""
        file, away = self.site.media / "late", self.site.media / "away"
        self.site.file("late", 2 * SLICE_BYTES)
        file.rename(away)
        self.submit("late", 2 * SLICE_BYTES, source=Source(str(file), Source.of(away).sha1, 2 * SLICE_BYTES))
        job = self.ids["late"]
        self.site.until(lambda: self._state("late") == "failed", "a failure")
        self.read(job)
        away.rename(file)
        with self.recorder.retrying(job) as asked:
            asked.heard(self.site.api.post(f"/v1/jobs/{job}/retry"))

    def _over(self) -> bool:
        rows = self.site.sql("SELECT state FROM job")
        return len(rows) == len(self.ids) and all(row["state"] in FINAL for row in rows)

    def _state(self, key: str) -> str:
        [row] = self.site.sql("SELECT state FROM job WHERE key = %(key)s", key=key)
        return str(row["state"])

    def _slice(self, key: str) -> Row:
        """The first slice of a job, and the name of the worker that has it."""
        [row] = self.site.sql(
            """SELECT s.state, w.name FROM job j JOIN slice s ON s.job_id = j.id LEFT JOIN worker w ON w.id = s.worker
               WHERE j.key = %(key)s AND s.number = 0""",
            key=key,
        )
        return row
