"""Schemathesis calls every route of the OpenAPI document with each kind of key, and checks the responses against it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.job_requests import enqueue
from tests.support.deadline import DEADLINE_S

SEED = 20261129
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "every_header_is_documented", "negative_data_rejection",
    "missing_required_header", "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip
CONFIG = """
hooks = "{hooks}"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, 431]
"""
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "10"))
ALL, SOME = "coverage,fuzzing,stateful", "fuzzing,stateful"
STATES = ["queued", "uploading", "failed", "cancelled", "succeeded"]


@pytest.fixture
def jobs(own_api: Any) -> list[str]:
    """Jobs in several states."""
    client = own_api.client()
    ids = [enqueue(client, state) for state in STATES]
    for job, state in zip(ids, STATES, strict=True):
        own_api.move(job, state)
    return ids


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(("acme", "submit", SOME), id="submit"),
        pytest.param(("acme", "read", SOME), id="read"),
        pytest.param(("acme", "operate", SOME), id="operate"),
        pytest.param(("acme", "admin", ALL), id="admin"),
        pytest.param(("umbrella", "submit read operate", SOME), id="another tenant"),
    ],
)
def test_every_answer_is_as_the_description_says(
    own_api: Any, jobs: list[str], kind: tuple[str, str, str], tmp_path: Path
) -> None:
    tenant, scopes, phases = kind
    authorization = own_api.client(tenant, scopes).headers["Authorization"]
    hooks = Path(__file__).parents[2] / "support" / "contract_hooks.py"
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(hooks=hooks))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{own_api.url}/openapi.json"),
        *("--header", f"Authorization: {authorization}", "--checks", ",".join(CHECKS)),
        *("--seed", str(SEED), "--max-examples", str(EXAMPLES)),
        *("--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", str(DEADLINE_S)),
        *("--phases", phases, "--continue-on-failure", "--no-color", "--warnings", "off"),
    ]
    environ = os.environ | {"CONTRACT_JOBS": " ".join(jobs)}
    run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    if {"submit", "admin"}.intersection(scopes.split()):
        assert own_api.count("job") > len(jobs), "nothing that was generated was accepted"
