"""The installation of acceptance tests and faults, as fixtures: one for test after test, until one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import pytest

from tests.support.evidence import evidence
from tests.support.installation import Installation
from tests.support.invariants import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey


Site = TypeVar("Site", bound=Installation)


class Ground(Generic[Site]):
    """Where installations stand: one at a time, and a new one after a test that failed."""

    def __init__(self, build: Callable[[], Site]) -> None:
        """Have `build` put up an installation where there is none."""
        self._build = build
        self._site: Site | None = None

    def site(self) -> Site:
        """The installation, clean."""
        if self._site is not None and self._site.dirty:
            self.clear()
        if self._site is None:
            self._site = self._build()
        self._site.begin()
        return self._site

    def lend(self) -> Iterator[Site]:
        """Lend the installation to one test; what must always hold is looked at when the test is over."""
        site = self.site()
        yield site
        site.calm()
        if not site.dirty:
            wrong = broken(site)
            site.dirty = bool(wrong)
            assert not wrong, "after the test: " + "; ".join(wrong)

    def clear(self) -> None:
        """Take it down."""
        site, self._site = self._site, None
        if site is not None:
            site.close()


@pytest.fixture(scope="session")
def ground(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    valkey: EmbeddedValkey,
    template_database: str,
) -> Iterator[Ground[Installation]]:
    ground = Ground(lambda: Installation(tmp_path_factory.mktemp("site"), postgres, valkey, template_database))
    yield ground
    ground.clear()


@pytest.fixture
def site(ground: Ground[Installation]) -> Iterator[Installation]:
    """An installation without workers; what must always hold is looked at when the test is over."""
    yield from ground.lend()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what happened in the installation."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Installation):
        site.dirty = True
        report.sections.append(("what happened", evidence(site)))
    return report
