"""The fault suite uses the installations of the acceptance tests, and the same invariants must hold after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.fixtures import ground, pytest_runtest_makereport, servers, site

if TYPE_CHECKING:
    import pytest

__all__ = ["ground", "pytest_runtest_makereport", "servers", "site"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much the explorer has seen."""
    lines = [
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "explored" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("explored")
        for line in lines:
            terminalreporter.write_line(line)
