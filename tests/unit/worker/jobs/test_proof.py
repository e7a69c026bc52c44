"""An object counts as ours on proof only, and size alone proves nothing where an object existed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.proof import Evidence, NotProven, Proof, prove

SIZE, DIGEST, MARK = 1000, "d1", "sliceway/j/2"
SAME_SIZE = Evidence(size_bytes=SIZE, digest=None, mark=None)
ASKED: dict[str, object] = {"digest_required": True}

#: the case, the evidence, the expected object, and the verdict
TABLE = [
    ("digest equal", replace(SAME_SIZE, digest=DIGEST), {}, Proof.DIGEST),
    ("digest equal, size unknown", Evidence(None, DIGEST, None), {}, Proof.DIGEST),
    ("digest differs", replace(SAME_SIZE, digest="d2", mark=MARK, acknowledged=True), {}, NotProven.NOT_OURS),
    ("size differs", replace(SAME_SIZE, size_bytes=SIZE + 1, digest=DIGEST, mark=MARK), {}, NotProven.NOT_OURS),
    ("our mark", replace(SAME_SIZE, mark=MARK), {}, Proof.MARK),
    ("our mark, no digest of ours", replace(SAME_SIZE, digest="d2", mark=MARK), {"digest": None}, Proof.MARK),
    ("the mark of an older epoch", replace(SAME_SIZE, mark="sliceway/j/1"), {}, NotProven.NOT_OURS),
    ("another's mark", replace(SAME_SIZE, mark="sliceway/k/2", acknowledged=True), {}, NotProven.NOT_OURS),
    ("acknowledged", replace(SAME_SIZE, acknowledged=True), {}, Proof.ACKNOWLEDGED),
    ("acknowledged, one was there", replace(SAME_SIZE, acknowledged=True, existed=True), {}, Proof.ACKNOWLEDGED),
    ("it lacks the mark ours has", replace(SAME_SIZE, session_gone=True, existed=False), {}, NotProven.NOT_OURS),
    ("none was before", replace(SAME_SIZE, session_gone=True, existed=False), {"marked": False}, Proof.NONE_BEFORE),
    ("one was before", replace(SAME_SIZE, session_gone=True, existed=True), {"marked": False}, NotProven.UNPROVEN),
    ("before is unknown", replace(SAME_SIZE, session_gone=True, existed=None), {"marked": False}, NotProven.UNPROVEN),
    ("session still there", replace(SAME_SIZE, existed=False), {"marked": False}, NotProven.UNPROVEN),
    ("nothing but the size", SAME_SIZE, {"marked": False}, NotProven.UNPROVEN),
    ("digest asked for and equal", replace(SAME_SIZE, digest=DIGEST), ASKED, Proof.DIGEST),
    ("digest asked for, mark", replace(SAME_SIZE, mark=MARK, acknowledged=True), ASKED, NotProven.NO_DIGEST),
    ("digest asked for, acknowledged", replace(SAME_SIZE, acknowledged=True), ASKED, NotProven.NO_DIGEST),
    (
        "digest asked for, none was before",
        replace(SAME_SIZE, session_gone=True, existed=False),
        ASKED | {"marked": False},
        NotProven.NO_DIGEST,
    ),
    (
        "digest asked for, not taken",
        replace(SAME_SIZE, digest="d2", mark=MARK),
        ASKED | {"digest": None},
        NotProven.NO_DIGEST,
    ),
    ("digest asked for, another's", replace(SAME_SIZE, mark="sliceway/k/2"), ASKED, NotProven.NOT_OURS),
    ("digest asked for, nothing but the size", SAME_SIZE, ASKED | {"marked": False}, NotProven.UNPROVEN),
]


@pytest.mark.parametrize(
    ("evidence", "wanted", "verdict"), [row[1:] for row in TABLE], ids=[row[0].replace(" ", "-") for row in TABLE]
)
def test_the_verdict(evidence: Evidence, wanted: dict[str, object], verdict: Proof | NotProven) -> None:
    terms = {"size_bytes": SIZE, "digest": DIGEST, "mark": MARK, "marked": True} | wanted
    assert prove(evidence, **terms) is verdict  # type: ignore[arg-type]


evidences = st.builds(
    Evidence,
    size_bytes=st.sampled_from([None, SIZE, SIZE + 1]),
    digest=st.sampled_from([None, DIGEST, "d2"]),
    mark=st.sampled_from([None, MARK, "sliceway/j/1", "sliceway/k/2"]),
    acknowledged=st.booleans(),
    session_gone=st.booleans(),
    existed=st.sampled_from([None, True, False]),
)


@given(evidences, st.sampled_from([None, DIGEST]), st.booleans())
def test_a_required_digest_allows_no_weaker_proof(evidence: Evidence, digest: str | None, marked: bool) -> None:
    terms = {"size_bytes": SIZE, "digest": digest, "mark": MARK, "marked": marked}
    asked, usual = prove(evidence, **terms, digest_required=True), prove(evidence, **terms)  # type: ignore[arg-type]
    weaker = isinstance(usual, Proof) and usual is not Proof.DIGEST
    assert asked is (NotProven.NO_DIGEST if weaker else usual)
    assert (asked is Proof.DIGEST) is (usual is Proof.DIGEST)


@given(evidences, st.sampled_from([None, DIGEST]), st.booleans())
def test_no_proof_ever_stands_against_the_evidence(evidence: Evidence, digest: str | None, marked: bool) -> None:
    verdict = prove(evidence, size_bytes=SIZE, digest=digest, mark=MARK, marked=marked)
    if isinstance(verdict, Proof):
        assert evidence.size_bytes in (None, SIZE)
        assert digest is None or evidence.digest in (None, digest)
        assert evidence.mark in (None, MARK) or verdict is Proof.DIGEST
    if verdict is Proof.ACKNOWLEDGED:
        assert evidence.acknowledged
    if verdict is Proof.NONE_BEFORE:
        assert evidence.session_gone
        assert evidence.existed is False


def test_size_alone_never_proves_anything_where_an_object_existed_or_may_have() -> None:
    choices = itertools.product([None, True], [True, False], [None, DIGEST], [True, False])
    for existed, session_gone, digest, marked in choices:
        seen = replace(SAME_SIZE, existed=existed, session_gone=session_gone)
        assert isinstance(prove(seen, size_bytes=SIZE, digest=digest, mark=MARK, marked=marked), NotProven)
