"""A pooler where PostgreSQL was expected: each way to the database, each role and each report names it."""

from __future__ import annotations

import signal
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from api import __main__ as api
from api.app import server
from tests.support.pooler import Pooler
from worker.cli import main
from worker.config.profiles import Profiles
from worker.config.settings import Settings, load_settings
from worker.db.migrate import pending_migrations
from worker.db.notify import listen
from worker.db.pool import Database, connect, conninfo
from worker.db.session_settings import UnexpectedPoolerError, unexpected_pooler
from worker.doctor.database import database as findings
from worker.local.errors import LocalError
from worker.local.process import wait_until
from worker.local.system import _migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADVICE = "Set SLICEWAY_DATABASE_DIRECT_URL to PostgreSQL's own address, past the pooler, then run `sliceway migrate`."


@pytest.fixture(params=[True, False], ids=["refuses", "drops"])
def pooled_url(database_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    url = make_url(database_url)
    with Pooler(url.port or 0, refuses=request.param) as pooler:
        yield url.set(port=pooler.port).render_as_string(hide_password=False)


@pytest.fixture
def in_environment(pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of this process; the API replaces its signal handlers."""
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", pooled_url)
    monkeypatch.setenv("SLICEWAY_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SLICEWAY_API_PORT", "0")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def settings(url: str, direct_url: str | None = None) -> Settings:
    given = {"SLICEWAY_DATABASE_URL": url, "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0", "SLICEWAY_API_PORT": "0"}
    return load_settings(given | ({"SLICEWAY_DATABASE_DIRECT_URL": direct_url} if direct_url else {}))


@contextmanager
def api_of(settings: Settings) -> Iterator[httpx.Client]:
    served = server(settings)
    thread = threading.Thread(target=served.run)
    thread.start()
    assert wait_until(lambda: served.started, timeout_s=60, alive=thread.is_alive)
    port = served.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        yield client
    served.should_exit = True
    thread.join(60)


def by_pool(url: str) -> None:
    with closing(Database(url, pool_size=1, plan_once=True)) as database, database.connection():
        pass


@pytest.mark.parametrize("way", [by_pool, connect, listen, pending_migrations])
def test_no_way_to_the_database_leads_through_it(pooled_url: str, way: Callable[[str], Any]) -> None:
    with pytest.raises(Exception, match=r"a pooler at 127\.0\.0\.1:") as caught:
        way(pooled_url)
    assert isinstance(unexpected_pooler(caught.value), UnexpectedPoolerError)


def test_one_that_a_setting_names_is_passed_and_used(pooled_url: str, database_url: str) -> None:
    with connect(pooled_url, pooled=True) as through, connect(database_url) as past:
        assert {through.info.dbname} == {past.info.dbname}
    found = {
        each.check: each.level for each in findings(settings(pooled_url, database_url), Profiles(stores={}, roots={}))
    }
    assert (found["database"], found["database, directly"]) == ("ok", "ok")


@pytest.mark.usefixtures("in_environment")
def test_migrate_refuses_it_and_leaves_nothing_behind(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert main.run(["migrate"]) == main.UNREACHABLE
    said = capsys.readouterr().err
    assert (said.count("\n"), said.count(ADVICE)) == (3, 3)
    with psycopg.connect(conninfo(database_url)) as here:
        [locks] = here.execute(b"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() or [None]
    assert locks == 0


def test_up_is_refused_with_the_same_advice(pooled_url: str) -> None:
    with pytest.raises(LocalError, match="a pooler at") as caught:
        _migrate(settings(pooled_url))
    assert caught.value.advice == ADVICE


@pytest.mark.usefixtures("in_environment")
@pytest.mark.parametrize("role", [lambda: main.run(["worker"]), api.main], ids=["worker", "api"])
def test_a_role_does_not_start(capsys: pytest.CaptureFixture[str], role: Callable[[], int]) -> None:
    assert role() == main.USAGE
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sliceway: ")]
    assert line.startswith("sliceway: SLICEWAY_DATABASE_URL: a pooler at 127.0.0.1:")
    assert line.endswith(ADVICE)


def test_readiness_and_requests_name_it(pooled_url: str) -> None:
    """The API started while the database was away."""
    with api_of(settings(pooled_url)) as client:
        ready, asked = client.get("/readyz"), client.get("/v1/jobs", headers={"Authorization": "Bearer slw_fake"})
    for response in (ready, asked):
        problem = response.json()
        assert (response.status_code, problem["code"], problem["advice"]) == (503, "unexpected_pooler", ADVICE)
        assert "a pooler at 127.0.0.1:" in problem["detail"]


def test_the_doctor_names_it_at_either_url(pooled_url: str, database_url: str) -> None:
    for given, check in (
        (settings(pooled_url), "database"),
        (settings(database_url, pooled_url), "database, directly"),
    ):
        found = {each.check: each for each in findings(given, Profiles(stores={}, roots={}))}
        assert (found[check].level, found[check].advice) == ("failed", ADVICE)
        assert found[check].text.startswith("a pooler at 127.0.0.1:")
