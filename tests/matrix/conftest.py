"""One cell a commit, where the whole matrix would take too long: `--cell-of-commit $(git rev-list --count HEAD)`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cell-of-commit", type=int, help="run one cell of the matrix: the next one for each commit")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    commit = config.getoption("--cell-of-commit")
    if commit is not None and items:
        chosen = sorted(items, key=lambda item: item.name)[commit % len(items)]
        config.hook.pytest_deselected(items=[item for item in items if item is not chosen])
        items[:] = [chosen]


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    return [f"cell: {item.name}" for item in items]
