"""Turns a file's name on the command line into the source and the target of a job."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from worker.config.variables import given
from worker.errors import SettingsError, SlicewayError

if TYPE_CHECKING:
    from collections.abc import Mapping


class BadName(SlicewayError):
    """A job cannot hold the name of the file."""

    code = "bad_name"


class NotBelowRoot(SlicewayError):
    """The file lies where no worker may read."""

    code = "not_below_root"


def source_of(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the job's source: the root that the file lies below, and the path from there.

    Raises:
        NotBelowRoot: the file lies below no root, or is no regular file.
        BadName: the file's name is not UTF-8.
        SettingsError: the stores file, which names the roots, is not named or cannot be read.
    """
    _check_file(file)
    whole = file.resolve()
    roots = _roots(environ)
    above = [name for name, root in roots.items() if whole.is_relative_to(root)]
    if not above:
        named = ", ".join(f"{name} = {root}" for name, root in roots.items()) or "none"
        raise NotBelowRoot(
            f"{file} lies below no root that the workers read from (roots: {named})",
            advice="Put it below one of them, or add [roots.NAME] to the stores file of API and workers.",
        )
    nearest = max(above, key=lambda name: len(roots[name].parts))
    return {"kind": "file", "root": nearest, "path": utf8(whole.relative_to(roots[nearest]))}


def utf8(name: Path) -> str:
    """Return a file's name, decoded from its bytes on the disk as UTF-8, whatever the locale is.

    Raises:
        BadName: the bytes are not UTF-8.
    """
    try:
        return os.fsencode(name).decode()
    except UnicodeDecodeError:
        escaped = os.fsencode(name).decode(errors="backslashreplace")
        raise BadName(f"the name {escaped} is not UTF-8", advice="Rename the file: jobs are kept as UTF-8.") from None


def _check_file(file: Path) -> None:
    name = utf8(file)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotBelowRoot(f"there is no file {name}", code="no_file", advice="Check its name.") from None
    except OSError as error:
        raise NotBelowRoot(f"{name}: {error.strerror}", code="no_file", advice="Check its name.") from None
    if stat.S_ISDIR(mode):
        raise NotBelowRoot(f"{name} is a folder", code="no_file", advice="Name the files in it, one by one.")
    if not stat.S_ISREG(mode):
        raise NotBelowRoot(f"{name} is no regular file", code="no_file", advice="Name a regular file.")


def _roots(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the roots of the stores file, without reading its secrets: this user may not be allowed to."""
    named = given(environ).get("SLICEWAY_STORES_FILE")
    if not named:
        raise SettingsError(
            "SLICEWAY_STORES_FILE is not set, so the roots are not known",
            advice="Set it to the stores file that API and workers use.",
        )
    try:
        tables = tomllib.loads(Path(named).read_text(encoding="utf-8-sig")).get("roots", {})
        return {name: Path(table["path"]).resolve() for name, table in tables.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(f"SLICEWAY_STORES_FILE {named} cannot be read: {error!r}") from error


def place_of(text: str, file: Path) -> tuple[str, str]:
    """Return store and key of `STORE:KEY`; a key that is empty or ends in a slash gets the file's name.

    Raises:
        ValueError: the text has no colon, or no store before it.
        BadName: the file's name is not UTF-8.
    """
    store, colon, key = text.partition(":")
    if not colon or not store:
        raise ValueError(f"{text!r} is not STORE:KEY, such as main:videos/a.mp4")
    return store, key + utf8(Path(file.name)) if key == "" or key.endswith("/") else key
