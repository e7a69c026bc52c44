"""Real servers for every test that wants them: PostgreSQL and Valkey a session (and xdist process), an emulator a test.

All of them listen on loopback with ports of their own below a temporary folder, so that any number of runs can go on
side by side, and none outlives the run, even one that is killed.
"""

from __future__ import annotations

import ipaddress
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis
from pydantic import SecretStr

from tests.support.templates import database_of, make_template
from worker.config.profiles import StoreProfile
from worker.emulator.config import EmulatorConfig, StoreAccount
from worker.emulator.server import Emulator
from worker.local.postgres import EmbeddedPostgres
from worker.local.valkey import EmbeddedValkey
from worker.telemetry import redact

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Kinds of tests, each a folder, in the order in which they run: what is quick to fail comes first.
KINDS = ("unit", "migration", "integration", "acceptance", "faults", "packaging", "browser", "matrix", "benchmarks")

#: What the emulator of a test knows.
APPID, BUCKET, SECRET_ID, SECRET_KEY = "10055004", "uploads", "fake-secret-id", "fake-secret-key"


# a shell that starts the tests in its background has them ignore Ctrl-C, and so every process that a test interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup has them ignore a closed terminal, too; what is handled here, if only by nothing, is as usual in a child
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    for kind in KINDS:
        config.addinivalue_line("markers", f"{kind}: tests below tests/{kind}")
    sys.addaudithook(_loopback_only)
    # a busy machine is no failure
    hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    rank: dict[pytest.Item, int] = {}
    for item in items:
        kind = item.path.relative_to(here).parts[0]
        rank[item] = KINDS.index(kind)
        item.add_marker(kind)
    items.sort(key=rank.__getitem__)


@pytest.fixture(autouse=True)
def secrets_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after a test what it made secret (short texts, too); what was secret before stays so."""
    monkeypatch.setattr(redact, "_known", redact._known)
    monkeypatch.setattr(redact, "_short", dict(redact._short))


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    """Refuse connections to other machines: a test that needs one would fail elsewhere."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise AssertionError(f"a test connects to {host}; only loopback is allowed")


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A temporary folder for servers, which an unprivileged account may pass through (pytest's own may not be)."""
    folder = Path(tempfile.mkdtemp(prefix="sliceway-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A throwaway PostgreSQL server. A test that stops it starts it again."""
    server = EmbeddedPostgres(server_folder / "postgres", durable=False)
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey server without persistence. A test that stops it starts it again."""
    server = EmbeddedValkey(server_folder / "valkey", durable=False)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """A COS emulator of this test's own, in this process, with the bucket of `store_profile`."""
    account = StoreAccount(appid=APPID, buckets=(BUCKET,), secret_id=SECRET_ID, secret_key=SECRET_KEY)
    with Emulator(EmulatorConfig(data_dir=tmp_path / "emulator", accounts=(account,), fsync=False)) as emulator:
        yield emulator


@pytest.fixture
def store_profile(emulator: Emulator) -> StoreProfile:
    """The profile `main`, which leads to the emulator."""
    return StoreProfile(
        name="main",
        protocol="cos-json",
        endpoint=emulator.url,
        appid=APPID,
        bucket=BUCKET,
        secret_id=SecretStr(SECRET_ID),
        secret_key=SecretStr(SECRET_KEY),
    )


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database that every `database_url` is copied from."""
    return make_template(postgres)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """The SQLAlchemy URL of a migrated database that this test has for itself."""
    with database_of(postgres, template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database that this test has for itself."""
    with database_of(postgres, "template0") as url:
        yield url


@pytest.fixture
def broker_url(valkey: EmbeddedValkey) -> str:
    """The URL of an empty broker that this test has for itself."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        client.config_resetstat()
    return valkey.url
