"""Opens a job's source by its kind: a kind is a module beside this one, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from worker.errors import RootUnavailable
from worker.sources.base import Fingerprint, Source, SourceDocument
from worker.sources.file import open_file_source

if TYPE_CHECKING:
    from worker.config.profiles import RootProfile

OpenSource = Callable[[SourceDocument, Fingerprint | None, Mapping[str, "RootProfile"], str], Source]
"""What `open_source` calls, with its own arguments but the kind."""

READERS: Mapping[str, OpenSource] = {"file": open_file_source}
"""The kinds that a worker of this release reads; `api/schemas/sources.py` has what a request says of each."""


def open_source(
    kind: str, document: SourceDocument, expected: Fingerprint | None, roots: Mapping[str, RootProfile], worker: str
) -> Source:
    """Open a source for reading; with ``expected``, only if it still has this fingerprint.

    Args:
        kind: of the source.
        document: what the job says of it; only its own kind reads it.
        expected: the fingerprint that the job began with.
        roots: of the stores file, by name.
        worker: the process's name, for errors.

    Raises:
        RootUnavailable: the kind is of a later release; or this worker has no access to the source.
        SourceError: it cannot be read as promised.
    """
    opener = READERS.get(kind)
    if opener is None:
        advice = "Start workers of the release that enqueued it, or cancel it; waiting jobs go on by themselves."
        raise RootUnavailable(f"{worker} reads no source of kind {kind!r}", advice=advice)
    return opener(document, expected, roots, worker)
