"""The migrations make the tables that the code has in mind, back and forth, one process at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from tests.support.deadline import DEADLINE_S
from worker.db.migrate import alembic_config, migrate, migrations_folder, pending_migrations
from worker.db.pool import conninfo
from worker.errors import SlicewayError
from worker.jobs.process_models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
       coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'  -- PostgreSQL 18 lists NOT NULL too
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'options', relname, array_to_string(reloptions, ','), '', '', '', ''
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
ORDER BY 1, 2, 3
"""
ASKING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%pg_try_advisory_xact_lock%' AND pid <> pg_backend_pid()
"""


def catalogue(url: str) -> list[Any]:
    with psycopg.connect(conninfo(url)) as connection:
        return [row for row in connection.execute(CATALOGUE) if row[1] != "alembic_version"]


@pytest.fixture
def revisions(empty_database_url: str) -> list[str]:
    """Every revision, oldest first."""
    scripts = ScriptDirectory.from_config(alembic_config(empty_database_url))
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


def test_migrated_tables_are_those_of_the_models(empty_database_url: str, database_url: str) -> None:
    """`database_url` is migrated; the other one is made from the models at once."""
    engine = create_engine(empty_database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    assert catalogue(database_url) == catalogue(empty_database_url)
    assert len(catalogue(database_url)) > 100


def test_nothing_is_left_to_autogenerate(database_url: str) -> None:
    command.check(alembic_config(database_url))
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_each_migration_can_be_taken_back_and_made_again(empty_database_url: str, revisions: list[str]) -> None:
    url, config = empty_database_url, alembic_config(empty_database_url)
    seen = [catalogue(url)]
    for revision in revisions:
        migrate(url, revision)
        seen.append(catalogue(url))
        command.downgrade(config, "-1")
        assert catalogue(url) == seen[-2]
        migrate(url, revision)
        assert catalogue(url) == seen[-1]
    command.downgrade(config, "base")
    assert catalogue(url) == seen[0] == []


def test_a_job_that_was_written_by_hand_is_named_and_the_migration_goes_on_when_it_is_put_right(
    empty_database_url: str, revisions: list[str]
) -> None:
    migrate(empty_database_url, "0003")
    with psycopg.connect(conninfo(empty_database_url), autocommit=True) as connection:
        connection.execute(
            """INSERT INTO job (id, tenant, state, step, priority, finished_at, source, store, key, target, overwrite,
                 verify, retry_for_s)
               VALUES (gen_random_uuid(), 't', 'failed', 'pending', 5, now(), '{}', 'm', 'k', 't', false, 'auto', 60)"""
        )
        with pytest.raises(SlicewayError, match="is failed and its step is pending") as refused:
            migrate(empty_database_url)
        assert "docs/states.md" in refused.value.advice
        assert pending_migrations(empty_database_url) == revisions[3:]
        connection.execute("UPDATE job SET step = 'idle'")
    migrate(empty_database_url)
    assert pending_migrations(empty_database_url) == []


def test_a_migration_that_was_cut_short_is_made_again(empty_database_url: str, database_url: str) -> None:
    """An index that is built concurrently stays invalid, and the column before it is committed."""
    migrate(empty_database_url, "0004")
    with psycopg.connect(conninfo(empty_database_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE job ADD COLUMN failure_code text")
        connection.execute("CREATE INDEX ix_job_ended ON job (tenant)")
    migrate(empty_database_url)
    assert catalogue(empty_database_url) == catalogue(database_url)


def test_revisions_stand_in_one_line(revisions: list[str], empty_database_url: str) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(empty_database_url))
    assert scripts.get_heads() == [revisions[-1]]
    assert revisions == sorted(revisions)


def test_what_is_pending_is_reported(empty_database_url: str, revisions: list[str]) -> None:
    assert pending_migrations(empty_database_url) == revisions
    for place, revision in enumerate(revisions, 1):
        migrate(empty_database_url, revision)
        assert pending_migrations(empty_database_url) == revisions[place:]


def test_a_revision_of_a_newer_release_is_named(database_url: str) -> None:
    """An older release cannot know what is pending there, and does not say that nothing is."""
    with psycopg.connect(conninfo(database_url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Exception, match="9999"):
        pending_migrations(database_url)


def test_migrating_again_changes_nothing(database_url: str) -> None:
    before = catalogue(database_url)
    migrate(database_url)
    assert catalogue(database_url) == before


@pytest.fixture
def slow_database(empty_database_url: str) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """An empty database, and a connection that holds the lock under which migrations run."""
    with psycopg.connect(conninfo(empty_database_url), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(7536914302)")
        yield empty_database_url, holder


def test_two_migrators_at_once_wait_for_each_other(slow_database: tuple[str, psycopg.Connection[Any]]) -> None:
    url, holder = slow_database
    program = "import sys; from worker.db.migrate import migrate; migrate(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(2)]
    try:
        wait_until_two_ask(holder)
        assert [one.poll() for one in both] == [None, None]
        holder.execute("CREATE TABLE other AS SELECT 1 AS a")
        holder.execute("CREATE INDEX CONCURRENTLY ON other (a)")  # those who wait do not hold it up
        holder.execute("SELECT pg_advisory_unlock(7536914302)")
        assert [one.wait(DEADLINE_S) for one in both] == [0, 0]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert pending_migrations(url) == []
    assert catalogue(url)


def wait_until_two_ask(connection: psycopg.Connection[Any]) -> None:
    """Wait until two connections were seen to ask for the lock; between two tries neither shows that it does."""
    until = time.monotonic() + DEADLINE_S
    seen: set[int] = set()
    while len(seen) < 2:
        seen.update(pid for (pid,) in connection.execute(ASKING))
        assert time.monotonic() < until, seen


def test_a_migration_does_not_wait_long_for_running_work(empty_database_url: str, revisions: list[str]) -> None:
    """It would hold up every statement after it; `lock_timeout` ends it, and it can be run again."""
    migrate(empty_database_url, revisions[-1])
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        connection.execute("SELECT FROM job")  # a reader that does not end
        with ThreadPoolExecutor(1) as pool:
            taking_back = pool.submit(command.downgrade, alembic_config(empty_database_url), "base")
            with pytest.raises(Exception, match="lock timeout"):
                taking_back.result(60)
    command.downgrade(alembic_config(empty_database_url), "-1")


def test_the_folder_is_found_in_a_checkout() -> None:
    assert (migrations_folder() / "env.py").is_file()
    assert (migrations_folder() / "versions").is_dir()
