"""The class paths in the code exist: Celery and kombu import them by text, which no linter checks."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[3]
_CLASS_PATH = re.compile(r"(?:api|worker)(?:\.\w+)+:\w+")
PATHS = sorted(
    {
        node.value
        for package in ("api", "worker")
        for path in HOME.glob(f"{package}/**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CLASS_PATH.fullmatch(node.value)
    }
)


def test_the_class_paths_are_found() -> None:
    """At least the tasks' strategy, the worker's pool and its consumer are among them."""
    assert {path.rpartition(":")[2] for path in PATHS} >= {"strategy", "TaskPool", "Consumer"}


@pytest.mark.parametrize("path", PATHS)
def test_each_class_path_can_be_imported(path: str) -> None:
    module, _, name = path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
