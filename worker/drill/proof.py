"""Checks that the object is the drill's file: size and mark at the store, and its bytes after a download."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from worker.doctor.findings import Finding, Level
from worker.errors import Interrupted, StoreError
from worker.http.deadline import Deadline
from worker.http.proxy import for_httpx

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.stores.base import Stored, StoreDriver

ANSWER_S = 30.0
_STEP = "verified"
_ADVICE = "Compare the object with its file before you trust other uploads; see the job's events."


@dataclass(frozen=True, slots=True)
class Expected:
    """The key, mark, size and SHA-1 that the object must have."""

    key: str
    mark: str
    size_bytes: int
    sha1: str


def verify(store: StoreDriver, profile: StoreProfile, wanted: Expected) -> Finding:
    """Compare size and mark, then download the object and compare its SHA-1 if the store gives an address."""
    try:
        stored = store.head(wanted.key, Deadline(ANSWER_S))
    except (StoreError, Interrupted) as error:
        return Finding(_STEP, Level.FAILED, f"the store does not show the object: {error.message}", error.advice)
    if stored is None:
        return Finding(_STEP, Level.FAILED, "the job succeeded, but no object is at its key", _ADVICE)
    if stored.size_bytes != wanted.size_bytes or stored.mark != wanted.mark:
        text = f"{stored.size_bytes:,} bytes with the mark {stored.mark}, not {wanted.size_bytes:,} with {wanted.mark}"
        return Finding(_STEP, Level.FAILED, f"the object is another: {text}", _ADVICE)
    return _read_back(stored, profile, wanted)


def _read_back(stored: Stored, profile: StoreProfile, wanted: Expected) -> Finding:
    at_store = f"the store says {wanted.size_bytes:,} bytes with our mark"
    url = stored.details.get("access_url")
    if url is None:
        return Finding(_STEP, Level.NOTE, f"{at_store}; not read back: the store gives no address")
    try:
        status, read_bytes, digest = _download(url, profile, wanted.size_bytes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"{at_store}; not read back: {url} cannot be reached ({type(error).__name__})"
        return Finding(_STEP, Level.NOTE, text)
    if status != httpx.codes.OK:
        return Finding(_STEP, Level.NOTE, f"{at_store}; not read back: {url} answers HTTP {status}")
    if digest != wanted.sha1:
        text = f"downloaded {read_bytes:,} bytes with the SHA-1 {digest}, but the file has {wanted.sha1}"
        return Finding(_STEP, Level.FAILED, text, _ADVICE)
    return Finding(_STEP, Level.OK, f"{at_store}; downloaded, its SHA-1 is the file's")


def _download(url: str, profile: StoreProfile, size_bytes: int) -> tuple[int, int, str]:
    """Return status, size and SHA-1 of the answer. The download ends at the first piece past the expected size."""
    digest, read_bytes = hashlib.sha1(usedforsecurity=False), 0
    trusted = ssl.create_default_context(cafile=profile.ca_file)
    with (
        httpx.Client(verify=trusted, proxy=for_httpx(profile.proxy), trust_env=False, timeout=ANSWER_S) as client,
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code == httpx.codes.OK:
            for piece in answer.iter_raw():
                digest.update(piece)
                read_bytes += len(piece)
                if read_bytes > size_bytes:
                    break
    return answer.status_code, read_bytes, digest.hexdigest()
