"""The command line in this process, against an API in a process of its own."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stores_file import write_stores
from worker.cli import main
from worker.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORE = {
    "protocol": "cos-json", "endpoint": "http://127.0.0.1:1", "appid": "1250000000", "bucket": "media",
    "secret_id": "fake-secret-id", "secret_key": "fake-secret-key",
}  # fmt: skip


@dataclass
class CommandLine:
    """Runs commands and keeps their output."""

    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, line: str) -> int:
        code = main.run(shlex.split(line))
        self.out, self.err = self.capsys.readouterr()
        return code

    def fails(self, line: str, code: int, *says: str) -> None:
        """Assert that the command ends with this code and one line on standard error that has all these texts."""
        assert (self(line), self.err.count("\n")) == (code, 1), self.err
        assert self.err.startswith("sliceway: ")
        for text in says:
            assert text in self.err


@pytest.fixture
def sliceway(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[CommandLine]:
    """The command line without settings, where nothing runs."""
    for name in os.environ:
        if name.startswith("SLICEWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLICEWAY_STATE_DIR", str(tmp_path / "none"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield CommandLine(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def installation(
    sliceway: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> CommandLine:
    """The command line with settings for a database, a stores file and a root, and for a broker that does not run."""
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.bin").write_bytes(b"x")
    write_stores(tmp_path / "stores.toml", {"main": STORE}, {"media": {"path": tmp_path / "media"}})
    monkeypatch.delenv("SLICEWAY_STATE_DIR")
    monkeypatch.setenv("SLICEWAY_DATABASE_URL", database_url)
    monkeypatch.setenv("SLICEWAY_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SLICEWAY_STORES_FILE", str(tmp_path / "stores.toml"))
    return sliceway


@pytest.fixture
def serving(installation: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """The command line with a key for a running API."""
    port = free_port()
    monkeypatch.setenv("SLICEWAY_API_PORT", str(port))
    monkeypatch.setenv("SLICEWAY_API_URL", f"http://127.0.0.1:{port}")
    assert installation("keys create --tenant acme") == 0
    monkeypatch.setenv("SLICEWAY_API_KEY", installation.out.strip())
    api = subprocess.Popen([sys.executable, "-m", "worker.cli", "api"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: api.poll() is not None or answers(port))
        yield installation
    finally:
        api.terminate()
        assert api.wait(240) == 0


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(4800):  # four minutes: only a failure takes so long
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("the condition was not met in time")
