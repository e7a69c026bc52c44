"""Emulators in this process, and a client for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.emulator.client import APPID, BUCKET, SECRET_ID, SECRET_KEY, Cos
from worker.emulator.config import EmulatorConfig, StoreAccount
from worker.emulator.server import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_cos(tmp_path: Path) -> Iterator[Callable[..., Cos]]:
    """Starts an emulator with these fields of `EmulatorConfig`, on one folder; each start stops the previous one."""
    running: list[tuple[Emulator, Cos]] = []

    def stop() -> None:
        while running:
            emulator, cos = running.pop()
            cos.close()
            emulator.stop()

    def start(**fields: Any) -> Cos:
        stop()
        accounts = (StoreAccount(APPID, (BUCKET, "other"), SECRET_ID, SECRET_KEY),)
        config = {"data_dir": tmp_path / "data", "accounts": accounts, "fsync": False, **fields}
        emulator = Emulator(EmulatorConfig(**config))
        emulator.start()
        running.append((emulator, Cos(emulator.url, emulator.control_url, emulator.token_file)))
        return running[-1][1]

    yield start
    stop()


@pytest.fixture
def cos(start_cos: Callable[..., Cos]) -> Cos:
    """A client of an emulator with the default configuration, but without fsync."""
    return start_cos()
