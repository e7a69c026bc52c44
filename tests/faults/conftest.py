"""Faults are done to the same installations that the acceptance tests use, and the same must hold afterwards."""

from tests.acceptance.conftest import ground, pytest_runtest_makereport, site

__all__ = ["ground", "pytest_runtest_makereport", "site"]
