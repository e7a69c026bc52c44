"""A module of SLICEWAY_IMPORT that cannot be imported ends the start of each role with one line, without a server."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.deadline import DEADLINE_S
from tests.support.environ import importing, system_environ
from tests.support.processes import ALONE
from tests.support.stores_file import write_stores
from worker.cli.main import FAILED, USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLI = (sys.executable, "-m", "worker.cli")
FACTORY = (sys.executable, "-c", "from api.app import create_app; create_app()")
#: Every command that starts a role, and its exit code for wrong settings.
STARTS = {
    "api": ((*CLI, "api"), USAGE),
    "worker": ((*CLI, "worker"), USAGE),
    "flower": ((*CLI, "flower"), USAGE),
    "celery": (ALONE, USAGE),
    "factory": (FACTORY, FAILED),
}


@pytest.mark.parametrize(("argv", "code"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("text", [None, "raise RuntimeError('fake-secret-dsn')"], ids=["missing", "raises"])
def test_a_module_that_cannot_be_imported_ends_the_start_with_one_line(
    tmp_path: Path, text: str | None, argv: Sequence[str], code: int
) -> None:
    if text is not None:
        (tmp_path / "ops_tracing.py").write_text(text)
    environ = system_environ(
        "postgresql+psycopg://nobody:fake-secret-dsn@127.0.0.1:1/none",
        "redis://127.0.0.1:1/0",
        write_stores(tmp_path / "stores.toml", {}, {}),
        SLICEWAY_FLOWER_BASIC_AUTH="me:fake-secret-flower",
        **importing("json,ops_tracing", tmp_path),
    )
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == code
    what = "there is no module ops_tracing." if text is None else "the module ops_tracing raised RuntimeError: *** ("
    assert done.stderr.startswith(f"sliceway: SLICEWAY_IMPORT: {what}")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
