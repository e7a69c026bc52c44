"""The installation of acceptance tests and faults, as fixtures: one for test after test, until one fails."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Keeps one installation for test after test, and makes a new one after a test that failed."""

    def __init__(self, build: Callable[[], Site]) -> None:
        """Make an installation by `build` whenever there is none."""
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
        """Give the installation to one test, and check the invariants when the test is over."""
        site = self.site()
        yield site
        site.calm()
        if not site.dirty:
            wrong = broken(site)
            site.dirty = bool(wrong)
            assert not wrong, "after the test: " + "; ".join(wrong)

    def clear(self) -> None:
        """Stop the installation, if there is one."""
        site, self._site = self._site, None
        if site is not None:
            site.close()


@dataclass(frozen=True)
class Servers:
    """What every installation of this run is made on."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    template: str
    folders: pytest.TempPathFactory

    def install(self, kind: type[Site]) -> Site:
        """Start an installation of a kind."""
        return kind(self.folders.mktemp(kind.__name__.lower()), self.postgres, self.valkey, self.template)

    def ground(self, kind: type[Site]) -> Iterator[Ground[Site]]:
        """Have a ground with installations of a kind: what a fixture of module or session yields."""
        ground = Ground(lambda: self.install(kind))
        yield ground
        ground.clear()


@pytest.fixture(scope="session")
def servers(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Servers:
    return Servers(postgres, valkey, template_database, tmp_path_factory)


@pytest.fixture(scope="session")
def ground(servers: Servers) -> Iterator[Ground[Installation]]:
    yield from servers.ground(Installation)


@pytest.fixture
def site(ground: Ground[Installation]) -> Iterator[Installation]:
    """An installation without workers; the invariants are checked when the test is over."""
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
