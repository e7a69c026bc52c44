"""The operator's modules are imported in their order; one that cannot be is named, with its line and what to do."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import pytest

from worker.config.imports import import_modules
from worker.errors import SettingsError
from worker.telemetry.redact import hide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NUMBERS = itertools.count(1)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module with a name of its own and return its name; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(text: str) -> str:
        name = f"ops_of_a_test_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("ops_of_a_test_"):
            del sys.modules[name]


def refused(*names: str) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        import_modules(names)
    assert "\n" not in error.value.message + error.value.advice
    return error.value


def test_modules_are_imported_once_and_in_their_order(module: Callable[[str], str]) -> None:
    note = "import sys; sys.modules.setdefault('ops_of_a_test_notes', []).append(__name__)"
    names = [module(note), module(note)]
    import_modules(reversed(names))
    import_modules(names)
    assert sys.modules["ops_of_a_test_notes"] == [*reversed(names)]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("name", ["ops_of_a_test_0", "ops_of_a_test_0.tracing", "json.tracing"])
def test_a_missing_module_is_named_with_how_it_is_found(name: str) -> None:
    error = refused("json", name)
    assert error.message == f"SLICEWAY_IMPORT: there is no module {name}"
    assert "PYTHONPATH" in error.advice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\nraise RuntimeError('no DSN\\nand more')", "raised RuntimeError: no DSN ("),
        ("\n\nimport ops_of_a_test_0", "raised ModuleNotFoundError: No module named 'ops_of_a_test_0' ("),
        ("\n\nimport json; json.loads('{')", "raised JSONDecodeError: Expecting property name"),
        ("\n\nassert False", "raised AssertionError ("),
        ("\n\nraise SystemExit(7)", "raised SystemExit: 7 ("),
    ],
)
def test_a_module_that_raises_is_named_with_its_own_line(module: Callable[[str], str], text: str, said: str) -> None:
    name = module(text)
    error = refused(name)
    assert error.message.startswith(f"SLICEWAY_IMPORT: the module {name} {said}")
    assert error.message.endswith(f"{name}.py, line 3)")
    assert "SLICEWAY_IMPORT" in error.advice


def test_a_module_that_is_no_python_is_named(module: Callable[[str], str]) -> None:
    name = module("def (")
    assert f"the module {name} raised SyntaxError: " in refused(name).message


def test_an_error_of_a_module_shows_no_secret(module: Callable[[str], str]) -> None:
    hide("fake-secret-of-a-setting")
    text = 'raise ValueError("fake-secret-of-a-setting is not https://key:fake-secret-of-a-url@tracing.invalid/1")'
    message = refused(module(text)).message
    assert "ValueError: *** is not https://key:***@tracing.invalid/1" in message
