"""The stores file of a system under test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Table = dict[str, Any]
"""Fields of a profile or of a root, by name."""


def stores_toml(stores: Mapping[str, Table], roots: Mapping[str, Table]) -> str:
    """Return the text of a stores file with these profiles and roots, by name."""
    lines: list[str] = []
    for kind, tables in (("stores", stores), ("roots", roots)):
        for name, fields in tables.items():
            lines += [f"[{kind}.{name}]", *(f"{field} = {_value(value)}" for field, value in fields.items()), ""]
    return "\n".join(lines)


def write_stores(file: Path, stores: Mapping[str, Table], roots: Mapping[str, Table]) -> str:
    """Write a stores file; returns its path, for `SLICEWAY_STORES_FILE`."""
    file.write_text(stores_toml(stores, roots))
    return str(file)


def _value(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)  # JSON's strings, numbers and lists are TOML's, too
