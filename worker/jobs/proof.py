"""Whether an object is the one that a job put there. Pure; standard library only.

Size alone proves nothing where an object existed before: a stranger's, or an older version, may have the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Proof(StrEnum):
    """Why an object is believed to be ours."""

    DIGEST = "digest"
    """The store's digest of it is the file's."""
    MARK = "mark"
    """It carries this job's and epoch's mark."""
    ACKNOWLEDGED = "acknowledged"
    """The store acknowledged the finish of our own session, and the object has the file's size."""
    NONE_BEFORE = "none_before"
    """Our session is no longer unfinished, and no object was there before it."""


class NotProven(StrEnum):
    """Why it is not."""

    NOT_OURS = "not_ours"
    """Ours would have another size, digest or mark."""
    UNPROVEN = "unproven"
    """Nothing tells it from ours, and nothing shows that it is."""
    NO_DIGEST = "no_digest"
    """It would pass for ours, but the job asked for its digest, and there is none to compare."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an object at the target.

    Attributes:
        size_bytes: the object's size, if the store tells it.
        digest: the object's digest, if the store has one that it was given.
        mark: the mark found with the object.
        acknowledged: our finish (or one-request upload) was answered with success.
        session_gone: the store no longer lists our session as unfinished.
        existed: whether an object was there before the session; None if unknown.
    """

    size_bytes: int | None
    digest: str | None
    mark: str | None
    acknowledged: bool = False
    session_gone: bool = False
    existed: bool | None = None


def prove(
    evidence: Evidence,
    *,
    size_bytes: int | None,
    digest: str | None,
    mark: str,
    marked: bool,
    digest_required: bool = False,
) -> Proof | NotProven:
    """Return the strongest proof that the object is the file that the job was to put there, or what stands against it.

    Args:
        evidence: what is known of the object.
        size_bytes: the file's size; None where init was cut off before it was written down.
        digest: the file's digest in the store's algorithm, if it was taken.
        mark: the mark of this upload: `sliceway/<job>/<epoch>`.
        marked: whether our object carries it; not so where the job gave attributes of its own in its place.
        digest_required: the job asked for `verify: file`: no weaker proof will do, however the object came to be there.
    """
    found = _strongest(evidence, size_bytes, digest, mark, marked=marked)
    weaker = isinstance(found, Proof) and found is not Proof.DIGEST
    return NotProven.NO_DIGEST if digest_required and weaker else found


def _strongest(
    evidence: Evidence, size_bytes: int | None, digest: str | None, mark: str, *, marked: bool
) -> Proof | NotProven:
    if evidence.size_bytes is not None and size_bytes is not None and evidence.size_bytes != size_bytes:
        return NotProven.NOT_OURS
    if digest is not None and evidence.digest is not None:
        return Proof.DIGEST if evidence.digest == digest else NotProven.NOT_OURS
    if evidence.mark is not None:
        # another job's mark, or that of an older epoch, says that the object is not of this upload
        return Proof.MARK if evidence.mark == mark else NotProven.NOT_OURS
    if evidence.acknowledged:
        return Proof.ACKNOWLEDGED
    if marked:
        return NotProven.NOT_OURS
    return Proof.NONE_BEFORE if evidence.session_gone and evidence.existed is False else NotProven.UNPROVEN
