"""Responses of a COS JSON store: a JSON envelope with a code and data."""

from __future__ import annotations

from typing import Any

import httpx


def success(**data: Any) -> httpx.Response:
    """Return a success with this data."""
    return httpx.Response(200, json={"code": 0, "message": "SUCCESS", "request_id": "r", "data": data})


def refusal(code: int, status: int = 400, **headers: str) -> httpx.Response:
    """Return a refusal with this code."""
    return httpx.Response(status, json={"code": code, "message": "NO"}, headers=headers)
