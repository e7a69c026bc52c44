"""Rows are values: no function hands a bare dictionary on, and what a column may hold is read in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from worker.jobs.rows import ClaimedSlice, FailureCounts, SourceRef

HOME = Path(__file__).parents[4]
PACKAGES = ("jobs", "tasks", "dispatch", "maintenance", "runtime", "broker", "doctor", "drill")
#: The documents of columns that the code only passes on have their names here.
NAMED_IN = HOME / "worker/jobs/documents.py"
FILES = [file for package in PACKAGES for file in sorted((HOME / "worker" / package).rglob("*.py")) if file != NAMED_IN]
BARE = {"dict[str, Any]", "Dict[str, Any]"}

SLICE = {
    "tenant": "t", "source": {"kind": "file", "root": "r", "path": "p"}, "store": "main", "key": "k", "target": "t/k",
    "session": {"handle": "s"}, "fingerprint": {"size": 1}, "offset_bytes": 0, "slice_size_bytes": 10,
    "slice_error": None, "dispatched_at": None, "breaker_open": False, "attempts": 2, "session_losses": 1,
    "retry_for_s": 60, "failing_for_s": None, "error": None,
}  # fmt: skip


def annotations(tree: ast.Module) -> list[ast.expr]:
    """The annotations of functions and attributes, and the right sides of aliases."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg)
            found += [node.returns, *(argument.annotation for argument in arguments if argument)]
        elif isinstance(node, ast.AnnAssign):
            found.append(node.annotation)
    found += [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(HOME / "worker").as_posix())
def test_no_signature_attribute_or_alias_is_a_bare_dictionary(file: Path) -> None:
    bare = [
        f"line {part.lineno}"
        for annotation in annotations(ast.parse(file.read_text()))
        for part in ast.walk(annotation)
        if isinstance(part, ast.expr) and ast.unparse(part) in BARE
    ]
    assert bare == [], "name what it holds: a value of worker/jobs/rows.py or a document of worker/jobs/documents.py"


def test_a_slice_remembers_that_its_last_request_got_no_answer() -> None:
    assert not ClaimedSlice.from_row(SLICE).unanswered
    assert not ClaimedSlice.from_row(SLICE | {"slice_error": {"code": "store_unavailable"}}).unanswered
    assert ClaimedSlice.from_row(SLICE | {"slice_error": {"code": "slice_stalled", "unanswered": True}}).unanswered


def test_failures_know_the_job_s_last_code() -> None:
    assert FailureCounts.from_row(SLICE).last_code is None
    found = FailureCounts.from_row(SLICE | {"error": {"code": "store_throttled"}, "failing_for_s": 1.5})
    assert found == FailureCounts(2, 1, 60, 1.5, "store_throttled")


def test_a_source_of_another_release_is_read_without_a_root() -> None:
    document = {"kind": "url", "url": "https://host/path"}
    assert SourceRef.from_json(document) == SourceRef("url", "", document)
