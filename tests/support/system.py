"""The whole system, as `sliceway up` starts it, against given servers: an upload, a worker killed, Flower, doctor."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from tests.support.api import api_client
from tests.support.deadline import DEADLINE_S
from tests.support.environ import NOT_NICE, QUICK, clean_environ
from worker.emulator.control import CONTROL_FILE, Control
from worker.local.process import wait_until
from worker.local.state import APPID, BUCKET, State
from worker.local.system import ANY_PORTS, FLOWER_USER, Running, running_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

MIB = 1024 * 1024
FINAL = {"succeeded", "failed", "cancelled"}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with these settings of Sliceway, and no others."""
    return clean_environ("FLOWER_") | QUICK | NOT_NICE | dict(given)


@dataclass
class System:
    """A system that runs: two worker processes, the API, Flower and the emulator."""

    state: State
    running: Running
    environ: dict[str, str]
    query: Callable[[str], list[tuple[Any, ...]]]
    """Runs a statement on the database, on a connection of its own."""

    def __post_init__(self) -> None:
        """Make the clients."""
        running = self.running
        self.store = Control(running.control_url or "", self.state.objects / CONTROL_FILE)
        self.api = api_client(str(running.settings.api_url), running.api_key)
        self.flower = httpx.Client(
            base_url=f"http://127.0.0.1:{running.settings.flower_port}",
            auth=(FLOWER_USER, self.state.flower_password.read_text().strip()),
            trust_env=False,
            timeout=60,
        )

    def upload(self, slices: int) -> str:
        """Enqueue a file of so many slices of 1 MiB and a half one; returns the job's id."""
        self.content = random.Random(slices).randbytes(slices * MIB + MIB // 2)
        (self.state.files / "film.mov").write_bytes(self.content)
        source = {"kind": "file", "root": "files", "path": "film.mov"}
        document = {"source": source, "store": "main", "key": "videos/film.mov", "slice_size": MIB}
        answer = self.api.post("/v1/jobs", json=document)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return str(answer.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        """Return what the API shows of a job."""
        return dict(self.api.get(f"/v1/jobs/{job}").raise_for_status().json())

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: it is not in time; names it, and shows the logs.
            KeyboardInterrupt: a signal has come, which the system has taken for the end of its own.
        """
        stopped = self.running.supervisor.wait
        there = wait_until(
            lambda: bool(done()), timeout_s=DEADLINE_S, poll_s=0.05, alive=lambda: not stopped(timeout_s=0)
        )
        if stopped(timeout_s=0):
            raise KeyboardInterrupt
        logs = self.state.logs.glob("*.log")
        assert there, f"not in {DEADLINE_S:g} s: {what}\n" + "\n".join(log.read_text()[-4000:] for log in logs)

    def hold_slice(self, number: int) -> None:
        """Let the store leave the next request with this slice unanswered, until the worker that sends it is killed."""
        self._held, self._rule = number, self.store.add_rule("hold", op="data", offset=number * MIB, count=1)

    def kill_holder(self) -> None:
        """Kill the worker process that sends the slice held, which is still its own then."""
        self.until(lambda: self.store.requests(op="data", state="held"), "the slice to be held")
        of_slice = "FROM slice s JOIN worker w ON w.id = s.worker WHERE s.state = 'sending'"
        [(name,)] = self.query(f"SELECT w.name {of_slice} AND s.number = {self._held}")
        os.kill(int(name.rpartition(":")[2]), signal.SIGKILL)
        self.store.remove_rule(self._rule)
        self.store.release()

    def object_is_whole(self) -> bool:
        """Whether the store has exactly the file's bytes."""
        url = f"{self.running.emulator_url}/files/v2/{APPID}/{BUCKET}/videos/film.mov"
        there = httpx.get(url, trust_env=False, timeout=60).raise_for_status().content
        return hashlib.sha256(there).digest() == hashlib.sha256(self.content).digest()

    def flower_tasks(self, job: str) -> dict[str, str]:
        """Return the tasks of a job that Flower shows, and their states."""
        tasks = self.flower.get("/api/tasks").raise_for_status().json()
        return {uuid: task["state"] for uuid, task in tasks.items() if job in (task["args"] or "")}

    def flower_workers(self) -> list[str]:
        """Return the workers that Flower shows as online."""
        workers = self.flower.get("/api/workers", params={"status": "true"}).raise_for_status().json()
        return [name for name, online in workers.items() if online]


@contextmanager
def system(folder: Path, given: Mapping[str, str], database_url: str) -> Iterator[System]:
    """Have the system up on the servers that ``given``, settings by their names, leads to.

    Args:
        folder: for its state.
        given: the database's and the broker's settings.
        database_url: of the database, for the harness alone; as psycopg takes it.
    """
    state = State.at(folder)
    environ = environment(given)

    def query(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    with running_system(state, ports=ANY_PORTS, say=lambda _line: None, environ=environ) as running:
        more = {"SLICEWAY_STORES_FILE": str(state.stores)}
        made = System(state, running, environ | more, query)
        with made.api, made.flower:
            yield made
