"""`sliceway demo`: a real upload on real servers, a worker process killed during it, and a comparison at the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from worker.emulator.control import CONTROL_FILE, Control
from worker.errors import SlicewayError
from worker.jobs.states import FINAL, JobState
from worker.local.errors import LocalError
from worker.local.progress_printer import ProgressPrinter
from worker.local.state import APPID, BUCKET, State
from worker.local.supervisor import Stopped
from worker.local.system import ANY_PORTS, Running, running_system

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
SIZE_BYTES = 256 * MIB
RATE_BYTES_PER_S = 16_000_000
_KILL_AT = 0.3
_DEADLINE_S = 120.0
_POLL_INTERVAL_S = 0.25
_PATH = "holiday.mov"
_KEY = "videos/holiday.mov"


def run(*, size_bytes: int = SIZE_BYTES, rate_bytes_per_s: int = RATE_BYTES_PER_S) -> None:
    """Run the demo, and return when everything is compared, stopped and removed.

    Raises:
        SlicewayError: a step failed; the error names the folder of the logs, which stay.
    """
    began = time.monotonic()
    printer = ProgressPrinter()
    printer.title(f"Sliceway demo: a file of {size_bytes // MIB} MiB, and a worker killed on the way")
    with _throwaway_state() as state:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
        with running_system(state, ports=ANY_PORTS, say=printer.print_line, environ=environ) as running:
            printer.print_line(
                "PostgreSQL, Valkey, a COS store, API, two worker processes and Flower are up"
                f" after {time.monotonic() - began:.1f} s"
            )
            _Demo(state, running, printer).run(size_bytes, rate_bytes_per_s)
            printer.print_line("Stopping everything")
    printer.title(f"Demo passed in {time.monotonic() - began:.0f} s; everything is stopped and its files are removed")


@contextmanager
def _throwaway_state() -> Iterator[State]:
    """Yield a temporary state folder. A failed demo leaves it, for its logs."""
    folder = Path(tempfile.mkdtemp(prefix="sliceway-demo-"))
    folder.chmod(0o711)  # the database may run as another user, who must pass through
    try:
        yield State.at(folder)
    except Stopped:
        shutil.rmtree(folder)
        raise LocalError(
            "the demo was interrupted", code="interrupted", advice="Run it again; nothing of it is left."
        ) from None
    except (SlicewayError, httpx.HTTPError) as error:
        advice = f"The logs are in {folder}/logs; remove {folder} afterwards."
        raise LocalError(f"the demo failed: {error}", advice=advice) from error
    shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class _Demo:
    state: State
    running: Running
    printer: ProgressPrinter

    def run(self, size_bytes: int, rate_bytes_per_s: int) -> None:
        control = Control(self.running.control_url or "", self.state.objects / CONTROL_FILE)
        control.change(rate_bytes_per_s=rate_bytes_per_s)
        sha1 = _make_file(self.state.files / _PATH, size_bytes)
        self.printer.print_line(f"Made {_PATH}: {size_bytes:,} random bytes, SHA-1 {sha1}")
        api = httpx.Client(
            base_url=str(self.running.settings.api_url),
            headers={"Authorization": f"Bearer {self.running.api_key}"},
            trust_env=False,
            timeout=10,
        )
        with api:
            job = self._enqueue(api)
            self.printer.print_line(
                f"The store takes {rate_bytes_per_s / 1e6:.0f} MB/s, so that there is something to see"
            )
            lost = self._watch(api, control, job, size_bytes)
        self._compare(size_bytes, sha1)
        self._count_twice(control, size_bytes, lost)

    def _enqueue(self, api: httpx.Client) -> str:
        job_spec = {"source": {"kind": "file", "root": "files", "path": _PATH}, "store": "main", "key": _KEY}
        answer = api.post("/v1/jobs", json=job_spec, headers={"Idempotency-Key": "demo"})
        if answer.status_code != httpx.codes.ACCEPTED:
            raise LocalError(f"POST /v1/jobs was answered with {answer.status_code}: {answer.text}")
        job = str(answer.json()["id"])
        self.printer.print_line(f"POST {answer.url} -> 202, job {job}")
        return job

    def _watch(self, api: httpx.Client, control: Control, job: str, size_bytes: int) -> int:
        """Follow the job to its end and kill a worker process meanwhile; returns how many slices that process held."""
        deadline = time.monotonic() + _DEADLINE_S
        killed_at_s = lost = None
        with self.printer.progress(size_bytes) as show:
            while (view := _get(api, f"/v1/jobs/{job}"))["state"] not in FINAL:
                done = int(view["progress"]["bytes_done"])
                show(done)
                if killed_at_s is None and done >= _KILL_AT * size_bytes:
                    killed_at_s = time.monotonic()
                    self._kill_one(control)
                if killed_at_s is not None and lost is None and (lost := _slices_lost(api, job)) is not None:
                    noticed_s = time.monotonic() - killed_at_s
                    self.printer.print_line(
                        f"Its silence was noticed after {noticed_s:.0f} s: {lost} slices are sent again"
                    )
                if time.monotonic() > deadline:
                    raise LocalError(f"the job is still {view['state']} after {_DEADLINE_S:.0f} s")
                if self.running.supervisor.wait(_POLL_INTERVAL_S):
                    raise Stopped
            show(int(view["progress"]["bytes_done"]))
        if view["state"] != JobState.SUCCEEDED:
            raise LocalError(f"the job {view['state']}: {(view['error'] or {}).get('message')}")
        if killed_at_s is None:
            raise LocalError("the upload was over before a worker could be killed")
        self.printer.print_line("The job succeeded")
        return lost or 0

    def _kill_one(self, control: Control) -> None:
        pid = _children_of(self.running.worker.pid)[0]
        in_flight = len(control.requests(op="data", state="receiving"))
        os.kill(pid, signal.SIGKILL)
        self.printer.print_line(
            f"SIGKILL for worker process {pid}, {in_flight} slices being in flight; the upload goes on"
        )

    def _compare(self, size_bytes: int, sha1: str) -> None:
        url = f"{self.running.emulator_url}/files/v2/{APPID}/{BUCKET}/{_KEY}"
        digest, size = hashlib.sha1(usedforsecurity=False), 0
        with httpx.stream("GET", url, trust_env=False) as answer:
            for piece in answer.iter_raw():
                digest.update(piece)
                size += len(piece)
        if (answer.status_code, size, digest.hexdigest()) != (httpx.codes.OK, size_bytes, sha1):
            raise LocalError(f"the object differs: HTTP {answer.status_code}, {size} bytes, SHA-1 {digest.hexdigest()}")
        self.printer.print_line(f"Downloaded the object again: {size:,} bytes, SHA-1 {digest.hexdigest()}: equal")

    def _count_twice(self, control: Control, size_bytes: int, lost: int) -> None:
        accepted = [entry for entry in control.requests(op="data") if entry["effect"] == 0]
        slices = len({entry["offset"] for entry in accepted})
        twice = sum(entry["size"] for entry in accepted) - size_bytes
        self.printer.print_line(
            f"Bytes that the store took twice: {twice:,}, in {len(accepted) - slices} of {slices} slices"
            f" (the worker held {lost} when it was killed)"
        )
        if len(accepted) - slices > lost:
            raise LocalError("more slices were sent twice than the killed worker held")


def _get(api: httpx.Client, path: str) -> dict[str, Any]:
    return dict(api.get(path).raise_for_status().json())


def _slices_lost(api: httpx.Client, job: str) -> int | None:
    """How many slices the killed worker held; None before the dispatcher has declared it dead."""
    events = _get(api, f"/v1/jobs/{job}/events?limit=100")["items"]
    lost = [event["cause"]["slices"] for event in events if event["kind"] == "worker_lost" and event["cause"]]
    return sum(lost) if lost else None


def _make_file(path: Path, size_bytes: int) -> str:
    """Write random bytes and return their SHA-1."""
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("wb") as file:
        for offset in range(0, size_bytes, MIB):
            block = os.urandom(min(MIB, size_bytes - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _children_of(parent: int | None) -> list[int]:
    """The child processes of `parent`, by process id."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, (_, ppid) = int(stat.parent.name), stat.read_text().rsplit(")", 1)[1].split()[:2]
        except FileNotFoundError:  # the process has ended meanwhile
            continue
        if int(ppid) == parent:
            children.append(pid)
    return sorted(children)
