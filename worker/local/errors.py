"""The error of `sliceway up` and `sliceway demo`."""

from __future__ import annotations

from worker.errors import SlicewayError


class LocalError(SlicewayError):
    """Something on this machine prevents running everything here."""

    code = "local"
    advice = "See the log named, correct the cause and start again."
