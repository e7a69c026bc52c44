"""The operator's own modules: imported before anything that they may instrument is made."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from worker.errors import SettingsError
from worker.telemetry.redact import first_line, redact

if TYPE_CHECKING:
    from collections.abc import Iterable

_VARIABLE = "SLICEWAY_IMPORT"


def _names(value: object) -> object:
    """Return the names in a text, or the value if it is no text.

    Raises:
        ValueError: one of them cannot be the name of a module.
    """
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(","))
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the name of a module; write names such as ops.tracing, parted by commas")
    return names


ModuleNames = Annotated[tuple[str, ...], BeforeValidator(_names)]


def import_modules(names: Iterable[str]) -> None:
    """Import modules in their order; one that was imported before is left as it is.

    Raises:
        SettingsError: a module was not found, or raised; names it.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            found = error.name is None or not f"{name}.".startswith(f"{error.name}.")
            raise _raised(name, error) if found else _missing(name) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the module is not ours
            raise _raised(name, error) from None


def import_modules_or_exit(names: Iterable[str]) -> None:
    """Import modules where Celery or Flower would print a traceback of the error.

    Raises:
        SystemExit: 2, after the line that says what to do.
    """
    try:
        import_modules(names)
    except SettingsError as error:
        sys.stderr.write(f"sliceway: {error.message}. {error.advice}\n")
        raise SystemExit(2) from None


def _missing(name: str) -> SettingsError:
    return SettingsError(
        f"{_VARIABLE}: there is no module {name}",
        advice="Install it in the environment of Sliceway, or name its folder in PYTHONPATH.",
    )


def _raised(name: str, error: BaseException) -> SettingsError:
    frames = (each for each in traceback.extract_tb(error.__traceback__) if not _is_import(each.filename))
    own = next(frames, None)
    where = "" if own is None else f" ({own.filename}, line {own.lineno})"
    text = first_line(error)
    what = type(error).__name__ + ("" if text in ("", type(error).__name__) else f": {text}")
    return SettingsError(
        redact(f"{_VARIABLE}: the module {name} raised {what.rstrip('.')}{where}"),
        advice=f"Correct the module, or take it out of {_VARIABLE} to start without it.",
    )


def _is_import(filename: str) -> bool:
    """Say whether a file is a part of Python's import, and not of what is imported."""
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")
