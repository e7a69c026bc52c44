"""A call of an operation, and the data of its response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.emulator.cos_json.errors import CosError

if TYPE_CHECKING:
    from worker.emulator.core.targets import Target
    from worker.emulator.cos_json.form import FormData

_MAX_DIGITS = 19
_INT64_LIMIT = 2**63
Data = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that a client requests."""

    target: Target
    form: FormData
    #: Host and port of the request, for the URLs in the response.
    host: str
    #: Set by a fault, for init only: the slice size to impose, and whether slices must come in order.
    slice_size: int | None = None
    serial: bool = False

    def text(self, name: str) -> str:
        """A field; empty if it is absent."""
        return self.form.fields.get(name, "")

    def number(self, name: str, *, missing: int = -5999) -> int:
        """A field that is a decimal number.

        Raises:
            CosError: `missing` if it is absent; -5999 if it is not a number, or has more than 63 bits.
        """
        text = self.text(name)
        if not text:
            raise CosError(missing, name)
        number = decimal(text)
        if number is None:
            raise CosError(-5999, name)
        return number


def decimal(text: str) -> int | None:
    """The number in decimal digits, or None if it is not one of at most 63 bits."""
    digits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if digits and int(text) < _INT64_LIMIT else None
