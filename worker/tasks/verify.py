"""What proves an object: digests taken before the upload, and a request to the store after it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.errors import TIMEOUT_CODES, Permanent, StoreUnusable, Transient, Unknown
from worker.jobs.proof import Evidence, NotProven, Proof, prove
from worker.stores.base import Intent, Stored

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.jobs.documents import DigestsDocument, ResultDocument
    from worker.jobs.rows import ClaimedJob
    from worker.stores.base import StoreDriver
    from worker.tasks.guard import ClaimGuard


def mark_of(job: ClaimedJob) -> str:
    """Return the mark that the job's object carries in this epoch."""
    return f"{mark_of_any_epoch(job)}/{job.epoch}"


def mark_of_any_epoch(job: ClaimedJob) -> str:
    """Return the beginning that the job's marks of all epochs share."""
    return f"sliceway/{job.id}"


def intent_of(job: ClaimedJob, size_bytes: int) -> Intent:
    """Return what the job requests of the store, for a file of that size."""
    return Intent(job.key, size_bytes, job.overwrite, job.attributes, mark_of(job))


@dataclass(slots=True)
class Verification:
    """What an object must show to be believed ours."""

    size_bytes: int | None
    mark: str
    marked: bool
    digest_required: bool
    digest: str | None = None

    def take_digest(self, algorithm: str | None, body: memoryview) -> None:
        """Take the digest of a small file from memory, where the store keeps one to compare it with."""
        if algorithm is not None:
            self.digest = hashlib.new(algorithm, body, usedforsecurity=False).hexdigest()


def wanted_of(
    job: ClaimedJob, profile: StoreProfile, size_bytes: int | None, digests: DigestsDocument | None
) -> Verification:
    """Return what the object of a job must show; its digest, if one was taken before init."""
    return Verification(
        size_bytes=size_bytes,
        mark=mark_of(job),
        marked=job.attributes is None or profile.mark == "always",
        digest_required=job.verify == "file",
        digest=None if digests is None else digests["value"],
    )


def verify_object(
    store: StoreDriver,
    key: str,
    wanted: Verification,
    guard: ClaimGuard,
    *,
    acknowledged: bool = False,
    in_one: bool = False,
    session_gone: bool = False,
    existed: bool | None = None,
    sent: bool = False,
) -> tuple[Stored | None, Proof | NotProven]:
    """Ask the store for the key; return the object there, if any, and the proof that it is ours, or what is against it.

    ``in_one``: what was acknowledged is an upload in one request, so what carries its mark is no unfinished upload.
    ``sent``: something was just sent that the job has no session for; a refused request is then an unknown outcome,
    since as a refusal it would mean that nothing had been begun.

    Raises:
        StoreError: the request itself failed.
    """
    mark = wanted.mark if acknowledged and in_one else None
    try:
        stored = store.head(key, guard, expected=acknowledged, finished_mark=mark)
    except StoreUnusable as refused:
        if not sent:
            raise
        raise Unknown(f"it was sent, and is not to be seen: {refused.message}", answer=refused.answer) from refused
    if stored is None:
        return None, NotProven.NOT_OURS
    evidence = Evidence(
        size_bytes=stored.size_bytes,
        digest=stored.digest,
        mark=stored.mark,
        acknowledged=acknowledged,
        session_gone=session_gone,
        existed=existed,
    )
    return stored, prove(
        evidence,
        size_bytes=wanted.size_bytes,
        digest=wanted.digest,
        mark=wanted.mark,
        marked=wanted.marked,
        digest_required=wanted.digest_required,
    )


def unverified(job: ClaimedJob) -> Permanent:
    """Return the failure of a job that asked for `verify: file` where the object is there and no digest of it."""
    return Permanent(
        f"an object is at {job.key!r}, but the store shows no digest that verifies it",
        code="unproven",
        advice="Look at the object, then enqueue the file with verify: auto, which checks the size and our mark.",
    )


def without_effect(error: Unknown) -> Transient:
    """Return the error for a request of unknown outcome after which no object is there: a retry sends it."""
    code, advice = (error.code, error.advice) if error.code in TIMEOUT_CODES else (None, None)
    return Transient(f"it had no effect yet: {error.message}", code=code, advice=advice, answer=error.answer)


def result_of(size_bytes: int | None, proof: Proof, stored: Stored | None) -> ResultDocument:
    """Return the job's result: what was in fact verified, and the store's own account of the object."""
    verified = "file" if proof is Proof.DIGEST else "size"
    result: ResultDocument = {"verified": verified, "proof": proof, "size_bytes": size_bytes}
    if stored is not None:
        result["digest"] = stored.digest
        result["details"] = dict(stored.details)
        if size_bytes is None:
            result["size_bytes"] = stored.size_bytes
    return result
