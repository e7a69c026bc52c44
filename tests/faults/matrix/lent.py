"""The fixtures of tests that do much to the store: one installation for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import Ground
from tests.faults.matrix.ground import StoreGround

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey


@pytest.fixture(scope="session")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str
) -> Iterator[Ground[StoreGround]]:
    """Where the installation stands."""
    ground = Ground(lambda: StoreGround(tmp_path_factory.mktemp("matrix"), postgres, valkey, template_database))
    yield ground
    ground.clear()


@pytest.fixture
def site(grounds: Ground[StoreGround]) -> Iterator[StoreGround]:
    """The installation; what must always hold is looked at when the test is over."""
    yield from grounds.lend()
