"""The decision on licences lists every package that is installed at run time, with the licence that it names."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(__file__).parents[2]
DECISION = HOME / "docs" / "decisions" / "0019-licences-and-provenance.md"
#: Packages of other platforms: their markers do not hold here, and the lock has them.
ELSEWHERE = {"async-timeout", "colorama", "tzdata"}
#: Licence names of packages that do not use the standard's names.
SPELT = {"BSD": "BSD-", "New BSD": "BSD-", "BSD License": "BSD-", "MIT License": "MIT", "Dual License": "Apache-2.0 OR"}
SPELT |= {"Apache Software License": "Apache-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0"}


def closure() -> set[str]:
    """Return our dependencies and those of the extras, with all theirs, as they are installed here."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    left = [Requirement(text) for text in [*project["dependencies"], *extras]]
    found: set[tuple[str, frozenset[str]]] = set()
    while left:
        needed = left.pop()
        here = (canonicalize_name(needed.name), frozenset(needed.extras))
        if here in found:
            continue
        found.add(here)
        for text in metadata.requires(here[0]) or []:
            further = Requirement(text)
            marker = further.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *needed.extras)):
                left.append(further)
    return {name for name, _ in found}


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| ([a-z][a-z0-9-]+) \| ([^|]+) \|", DECISION.read_text(), re.MULTILINE)
    return {name: licence for name, licence in rows if name != "package"}


def named_licence(name: str) -> str:
    """Return the licence that a package names, in one line."""
    fields = metadata.metadata(name)
    classifiers = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier") or [] if "License ::" in text]
    short = fields.get("License-Expression") or fields.get("License") or ""
    return short if short and "\n" not in short else classifiers[0]


def test_every_package_has_its_row_and_no_other_has_one() -> None:
    assert set(documented()) == closure() | ELSEWHERE
    locked = set(re.findall(r"^([a-z0-9-]+)==", (HOME / "requirements.lock").read_text(), re.MULTILINE))
    assert set(documented()) <= locked


def test_each_licence_is_the_one_that_the_package_names() -> None:
    table = documented()
    named = {name: named_licence(name) for name in closure()}
    wrong = {name: (table[name], own) for name, own in named.items() if not table[name].startswith(SPELT.get(own, own))}
    assert wrong == {}
