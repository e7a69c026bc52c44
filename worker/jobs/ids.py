"""Identities: job ids that sort by age, and task ids that an operator sees again."""

from __future__ import annotations

import os
import time
from uuid import UUID, uuid5

TASKS = UUID("6f0b7f52-3d0e-4f0c-9a53-5b5b8f6d2c11")  # any namespace of our own


def new_id() -> UUID:
    """Return a UUIDv7: 48 bits of Unix milliseconds, then random bits (RFC 9562, section 5.7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def task_id(job_id: UUID, part: str, epoch: int, run: int) -> str:
    """Return the Celery id of a job's step or slice: one id across all its attempts.

    ``part`` is the step's name or the slice's number; ``run`` grows with an operator's retry and after a revoke, since
    a worker discards every later message with an id that was revoked.
    """
    return str(uuid5(TASKS, f"{job_id}/{part}/{epoch}/{run}"))
