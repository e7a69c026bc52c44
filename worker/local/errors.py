"""What can be in the way of running everything on one machine."""

from __future__ import annotations

from worker.errors import SlicewayError


class LocalError(SlicewayError):
    """Something on this machine is in the way of running everything here."""

    code = "local"
    advice = "See the log named, correct the cause and start again."
