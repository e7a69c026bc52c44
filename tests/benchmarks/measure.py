"""A whole system for one measurement, and what is read from it while it works."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from rich import box
from rich.console import Console
from rich.table import Table

from tests.support.api import api_client
from tests.support.environ import clean_environ
from worker.db.pool import conninfo
from worker.local.state import State
from worker.local.system import ANY_PORTS, Running, running_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import httpx

KIB = 1024
MIB = 1024 * KIB
PACKAGES = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "httpx", "fastapi", "uvicorn")

out = Console(highlight=False, soft_wrap=True, width=200)


@contextmanager
def scratch(place: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sliceway-benchmark-", dir=place))
    folder.chmod(0o711)  # the database may run as another user
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def system(settings: Mapping[str, str] | None = None) -> Iterator[tuple[State, Running]]:
    """Everything that `sliceway up` brings up, in a temporary folder and on ports of its own; gone afterwards.

    ``settings`` are variables of the environment that are not to be as shipped.
    """
    with scratch() as folder:
        state = State.at(folder)
        environ = clean_environ() | dict(settings or {})
        with running_system(state, ports=ANY_PORTS, say=lambda _: None, environ=environ) as running:
            yield state, running


def api_of(running: Running) -> httpx.Client:
    """A client of the system's API, key included."""
    return api_client(str(running.settings.api_url), running.api_key)


class Sampler(threading.Thread):
    """Takes a sample every `every_s` seconds, as exactly as the machine allows, and keeps all samples."""

    def __init__(self, every_s: float, sample: Callable[[], Any]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Any] = []
        self._every_s, self._sample = every_s, sample
        self._over = threading.Event()

    def run(self) -> None:
        """Sample until `finish`."""
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self.samples.append(self._sample())
            due += self._every_s

    def finish(self) -> list[Any]:
        """End the thread and return all samples."""
        self._over.set()
        self.join()
        return self.samples


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return sorted(found)


_ROLES = {
    "-A plain_celery": "plain worker",
    "-A bare_celery": "plain worker",
    "-A worker worker": "worker process",
    "worker.cli worker": "worker parent",
    "worker.cli put": "sliceway put",
    "worker.cli api": "api",
    "-m api": "api",
    "flower": "flower",
    "worker.emulator": "emulator",
    "reaper": "reaper",
    "valkey-server": "valkey",
    "postgres": "postgres",
}


def role_of(pid: int) -> str:
    """What a process of the system is, by its command line."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:  # it ended meanwhile
        return "gone"
    return next((role for part, role in _ROLES.items() if part in command), command[:40])


def cpu_s(pid: int) -> float:
    """The CPU seconds, of user and system, of a process and of those of its children that have ended; 0 if it has."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def cpu_by_role() -> dict[str, float]:
    """The CPU seconds used so far by all processes below this one, by what they are."""
    used: dict[str, float] = {}
    for pid in descendants(os.getpid()):
        role = role_of(pid)
        used[role] = used.get(role, 0.0) + cpu_s(pid)
    return used


def idle_s() -> float:
    """The seconds that the cores have been idle so far, all together; they wait for the disk in some of them."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int | None:
    """The proportional set size of a process; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith("Pss:")), None)


def machine(running: Running) -> list[str]:
    """What was measured on: machine, kernel, versions, and the command."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with psycopg.connect(conninfo(running.settings.database_url)) as database:
        row = database.execute("SHOW server_version").fetchone()
    with redis.Redis.from_url(running.settings.broker_url.for_kombu()) as broker:
        valkey = broker.info("server")["valkey_version"]
    return [
        f"{os.cpu_count()} cores of {cpu.partition(': ')[2]}, {memory_gib:.0f} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}, PostgreSQL {row[0] if row else '?'}, Valkey {valkey}, "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    ]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Print a table as Markdown has it, and below it what it was measured on."""
    table = Table(title=title, title_justify="left", title_style="", box=box.MARKDOWN)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for note in notes:
        out.print(f"  {note}")
