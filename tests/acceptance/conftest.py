"""Tests of the whole system: real worker processes against real servers, and invariants after each of them."""

from __future__ import annotations

from tests.support.fixtures import ground, pytest_runtest_makereport, servers, site

__all__ = ["ground", "pytest_runtest_makereport", "servers", "site"]
