"""The JSON documents that columns keep, by name; `worker.errors` has that of an error."""

from __future__ import annotations

from typing import Any, TypedDict

JsonObject = dict[str, Any]
"""A JSON document of a column that the code only passes on."""
SourceDocument = dict[str, Any]
"""`job.source`: where the bytes come from. Its `kind` names the reader; only the `root` is read by others, too."""
SessionHandle = dict[str, Any]
"""`job.session`: a store's name for an unfinished upload, read by that store's driver only."""
FingerprintDocument = dict[str, Any]
"""`job.fingerprint`: what makes a source the same source, read by its own kind only."""


class HashingDocument(TypedDict):
    """`job.hashing`: how far init has hashed the file."""

    offset_bytes: int
    state: Any
    """Of the digester, from which another process goes on."""


class DigestsDocument(TypedDict):
    """`job.digests`: the digests of the whole file."""

    algorithm: str
    value: str
    """Lower-case hex."""
    proof: Any
    """What else the store's protocol wants to see of them."""


class LinkCounters(TypedDict):
    """One store's entry in `worker.links`: counters since the process began, all growing but `oldest_s`."""

    store: str
    answers: int
    answered_bytes: int
    answered_s: float
    """Seconds that the answered requests took, added up."""
    busy_s: float
    """Seconds in which any request was under way."""
    timeouts: int
    oldest_s: float
    """For how long the oldest request has been under way."""


class SendingEntry(TypedDict):
    """One entry of `worker.sending`: a request that carries content."""

    job: str
    number: int | None
    token: int
    bytes: int
    """Acknowledged so far."""
    size: int
    for_s: float


class ResultDocument(TypedDict, total=False):
    """`job.result`: what was verified of the object, and the store's own account of it."""

    verified: str
    proof: str
    size_bytes: int | None
    digest: str | None
    details: dict[str, str]
    slices: dict[str, int]
    """How many slices there were, and how often they were sent, see `succeed.sql`."""
    session_left_open: str
    """Of a cancelled job: why its session was left to expire."""
