"""No role and no command shows a secret of its settings, whatever is wrong with them: in its output or arguments."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from tests.support import echo
from tests.support.deadline import DEADLINE_S
from tests.support.leaks import leaked
from worker.cli.main import FAILED
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.local.valkey import EmbeddedValkey

COMMANDS = {"doctor": ("doctor", "--json"), "migrate": ("migrate",), "jobs": ("jobs", "list")}
#: Roles that go on although a server refuses them, with what they then say of it.
ROLES: dict[str, tuple[str, ...]] = {"worker": ("worker",), "api": ("api",), "flower": ("flower",)}


class Secrets:
    """A secret for each setting that bears one, and settings that are all right but for what a test makes wrong."""

    def __init__(self, folder: Path, database_url: str, broker_url: str) -> None:
        names = ("database", "broker", "flower", "api", "store", "proxy", "id")
        self.by_name = {name: secrets.token_urlsafe(18) + " +/%" + secrets.token_urlsafe(9) for name in names}
        self.by_name["id"] = "fAk3iD"  # too short to be looked for in pieces
        self.echo = echo.EchoServer((echo.in_headers_and_body, echo.in_the_reason, echo.in_no_status_line))
        self.stores = folder / "stores.toml"
        self.proxy(f"http://me:{self.quoted('proxy')}@127.0.0.1:{self.echo.port}")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
        self.environ = clean | {
            "SLICEWAY_DATABASE_URL": database_url,
            "SLICEWAY_BROKER_URL": broker_url,
            "SLICEWAY_FLOWER_BASIC_AUTH": f"me:{self.by_name['flower']}",
            "SLICEWAY_API_KEY": self.by_name["api"],
            "SLICEWAY_API_URL": f"http://127.0.0.1:{self.echo.port}",
            "SLICEWAY_API_PORT": str(free_port()),
            "SLICEWAY_FLOWER_PORT": str(free_port()),
            "SLICEWAY_STORES_FILE": str(self.stores),
            "SLICEWAY_WORKER_PROCESSES": "1",
            "SLICEWAY_LOG_LEVEL": "debug",  # errors with their tracebacks
        }

    def proxy(self, proxy: str) -> None:
        self.stores.write_text(
            f'[stores.main]\nprotocol = "cos-json"\nendpoint = "http://store.invalid"\nappid = "1"\nbucket = "b"\n'
            f'secret_id = "{self.by_name["id"]}"\nsecret_key = "{self.by_name["store"]}"\nproxy = "{proxy}"\n'
            f'[roots.media]\npath = "{self.stores.parent}"\n'
        )

    def quoted(self, name: str) -> str:
        return quote(self.by_name[name], safe="")

    def leaked(self, text: str) -> dict[str, list[str]]:
        return {name: found for name, secret in self.by_name.items() if (found := leaked(secret, text))}


@pytest.fixture
def wrong(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Secrets]:
    made = Secrets(tmp_path, database_url, broker_url)
    yield made
    made.echo.close()


def a_database_that_refuses_the_password(wrong: Secrets, url: str) -> dict[str, str]:
    port = httpx.URL(url.replace("+psycopg", "")).port
    return {
        "SLICEWAY_DATABASE_URL": f"postgresql+psycopg://sliceway:{wrong.quoted('database')}@127.0.0.1:{port}/postgres"
    }


def a_database_that_is_nowhere(wrong: Secrets, _url: str) -> dict[str, str]:
    return {"SLICEWAY_DATABASE_URL": f"postgresql+psycopg://me:{wrong.quoted('database')}@database.invalid:1/x"}


def a_database_url_that_is_none(wrong: Secrets, _url: str) -> dict[str, str]:
    return {"SLICEWAY_DATABASE_URL": f"postgresql+psycopg://me:{wrong.by_name['database']}@127.0.0.1:port/x?y=%zz"}


def urls_that_are_none(wrong: Secrets, _url: str) -> dict[str, str]:
    wrong.proxy(f"me:{wrong.quoted('proxy')}@127.0.0.1:3128")
    return {
        "SLICEWAY_BROKER_URL": f"redis://:{wrong.by_name['broker']}:127.0.0.1:port/0",
        "SLICEWAY_API_URL": f"http://me:{wrong.by_name['api']}@127.0.0.1:port",
    }


WRONG = [
    a_database_that_refuses_the_password,
    a_database_that_is_nowhere,
    a_database_url_that_is_none,
    urls_that_are_none,
]


@pytest.mark.parametrize("how", WRONG, ids=lambda how: how.__name__)
def test_no_command_shows_a_secret_of_what_is_wrong(
    wrong: Secrets, database_url: str, how: Callable[[Secrets, str], dict[str, str]]
) -> None:
    environ = wrong.environ | how(wrong, database_url)
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "worker.cli", *arguments],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name, arguments in COMMANDS.items()
    }  # fmt: skip
    said = {name: process.communicate(timeout=DEADLINE_S)[0] for name, process in running.items()}
    assert running["doctor"].returncode == FAILED, said["doctor"]
    assert {name: found for name, text in said.items() if (found := wrong.leaked(text))} == {}


def a_broker_that_refuses_the_password(wrong: Secrets, valkey: EmbeddedValkey) -> dict[str, str]:
    port = httpx.URL(valkey.url).port
    return {"SLICEWAY_BROKER_URL": f"redis://:{wrong.quoted('broker')}@127.0.0.1:{port}/0"}


def two_brokers_that_are_not_there(wrong: Secrets, _valkey: EmbeddedValkey) -> dict[str, str]:
    url = f"redis://:{wrong.quoted('broker')}@127.0.0.1:1/0"
    return {"SLICEWAY_BROKER_URL": f"{url};{url}"}


def a_database_gone(wrong: Secrets, _valkey: EmbeddedValkey) -> dict[str, str]:
    return a_database_that_is_nowhere(wrong, "")


@pytest.mark.parametrize(
    ("role", "how", "says"),
    [
        ("worker", a_broker_that_refuses_the_password, "invalid username-password"),
        ("worker", two_brokers_that_are_not_there, "Connection refused"),
        ("worker", a_database_gone, "database.invalid"),
        ("api", a_database_gone, "database.invalid"),
        ("flower", a_broker_that_refuses_the_password, "invalid username-password"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_no_role_shows_a_secret_while_a_server_is_away(
    wrong: Secrets, valkey: EmbeddedValkey, role: str, how: Callable[..., dict[str, str]], says: str
) -> None:
    environ, log = wrong.environ | how(wrong, valkey), wrong.stores.with_name("role.log")
    child = Child([sys.executable, "-m", "worker.cli", *ROLES[role]], log=log, env=environ)

    def has_said_it() -> bool:
        if role == "api":
            ask(int(environ["SLICEWAY_API_PORT"]))
        return says in log.read_text()

    try:
        assert wait_until(has_said_it, timeout_s=DEADLINE_S, poll_s=0.2), log.read_text()
        output = arguments(child.pid)
    finally:
        child.stop(grace_s=20)
    output += log.read_text()
    assert wrong.leaked(output) == {}
    assert wrong.by_name["id"] not in output
    if role != "flower":  # it needs no stores file
        assert output.count("settings.short_secret") == 1


def ask(port: int) -> None:
    """Have the API ask its database."""
    try:
        httpx.get(
            f"http://127.0.0.1:{port}/v1/jobs", headers={"Authorization": "Bearer x"}, trust_env=False, timeout=20
        )
    except httpx.HTTPError:
        return


def arguments(pid: int) -> str:
    """The arguments of a process and of all below it, as everyone on the machine may read them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if pid in (int(process.name), parent):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile
            continue
    return "\n".join(found)
