"""The kind of a source selects its reader, and requests may name the kinds that workers read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from api.schemas.sources import PLANNED_KINDS, AnySource
from worker.config.profiles import RootProfile
from worker.errors import RootUnavailable
from worker.sources.file import FileReader
from worker.sources.registry import READERS, open_source

if TYPE_CHECKING:
    from pathlib import Path

    from worker.sources.base import Source

DOCUMENT = {"kind": "file", "root": "media", "path": "a"}


def opened(folder: Path, document: dict[str, Any], kind: str = "file") -> Source:
    (folder / "a").write_bytes(b"content")
    return open_source(kind, document, None, {"media": RootProfile(name="media", path=folder)}, "host:7")


def test_the_kind_selects_the_reader(tmp_path: Path) -> None:
    with opened(tmp_path, DOCUMENT) as source:
        assert isinstance(source, FileReader)
        assert source.size_bytes == len(b"content")


def test_requests_may_name_the_kinds_that_workers_read() -> None:
    requested = re.findall(r'"const": "(\w+)"', json.dumps(TypeAdapter(AnySource).json_schema()))
    assert set(requested) == set(READERS)
    assert set(PLANNED_KINDS).isdisjoint(READERS)


@pytest.mark.parametrize(
    ("kind", "document", "message"),
    [
        ("url", {"kind": "url", "url": "https://host/a"}, "host:7 reads no source of kind 'url'"),
        ("file", DOCUMENT | {"root": "other"}, "root 'other' is not in the stores file of host:7"),
        ("file", {"kind": "file"}, "root '' is not in the stores file of host:7"),
    ],
)
def test_a_source_that_this_worker_cannot_open_is_waited_for(
    tmp_path: Path, kind: str, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(RootUnavailable) as caught:
        opened(tmp_path, document, kind)
    assert (caught.value.code, caught.value.message) == ("root_unavailable", message)
