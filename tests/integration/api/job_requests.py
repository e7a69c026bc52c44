"""Requests to enqueue a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


def job_body(key: str = "a", **more: Any) -> dict[str, Any]:
    return {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": key, **more}


def enqueue(client: httpx.Client, key: str = "a", **more: Any) -> str:
    """Enqueue a job and return its id."""
    answer = client.post("/v1/jobs", json=job_body(key, **more))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
