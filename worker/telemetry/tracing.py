"""The trace that a job belongs to, as W3C Trace Context names it; OpenTelemetry is used where a process has it loaded.

Written for version 00 of `traceparent` and OpenTelemetry 1.45. Nothing here imports OpenTelemetry.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION = "00"
_SAMPLED = 0x01
_PARTS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


def parsed_traceparent(text: str | None) -> str | None:
    """Return a `traceparent` as version 00 writes it; None if there is none, or a malformed one.

    Of a later version the first four parts are read, and of its flags the one that version 00 has.
    """
    if text is None or (found := _PARTS.fullmatch(text.strip(" \t"))) is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    if version != _VERSION:
        flags = f"{int(flags, 16) & _SAMPLED:02x}"
    elif more is not None:
        return None
    return f"{_VERSION}-{trace_id}-{parent_id}-{flags}"


def current_traceparent() -> str | None:
    """Return the active span's `traceparent`; None if there is none, or the process has no OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"{_VERSION}-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def under(traceparent: str | None) -> Iterator[None]:
    """Make the span that it names the parent of those that begin inside, where the process has OpenTelemetry."""
    context, propagate = (sys.modules.get(f"opentelemetry.{name}") for name in ("context", "propagate"))
    if traceparent is None or context is None or propagate is None:
        yield
        return
    token = context.attach(propagate.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
