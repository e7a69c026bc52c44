"""A call of an operation, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.emulator.cos_json.errors import CosError

if TYPE_CHECKING:
    from worker.emulator.core.targets import Target
    from worker.emulator.cos_json.form import FormData


_MOST_DIGITS = 19
_BEYOND = 2**63
Data = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that a client asks for."""

    target: Target
    form: FormData
    #: Host and port that the client spoke to, for the addresses in the answer.
    host: str
    #: init only, and by a fault: the slice size to give, and whether to insist on order.
    slice_size: int | None = None
    serial: bool = False

    def text(self, name: str) -> str:
        """A field, or the empty string."""
        return self.form.fields.get(name, "")

    def number(self, name: str, *, missing: int = -5999) -> int:
        """A field that is a decimal number.

        Raises:
            CosError: `missing` if it is not there, -5999 if it is no number, or one of more than 63 bits.
        """
        text = self.text(name)
        if not text:
            raise CosError(missing, name)
        if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS or int(text) >= _BEYOND:
            raise CosError(-5999, name)
        return int(text)
