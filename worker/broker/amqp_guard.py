"""RabbitMQ's messages whose properties are no text, or no table: read as messages without any.

The broker passes on whatever bytes a publisher has put there. Py-amqp raises where it cannot read them, which ends the
process, and the message, not acknowledged, then ends whoever gets it next. Without properties it names no task, and
the consumer drops it like all that is none of ours.

Written for amqp 5.4: `Message._load_properties`, and `method_framing`, which makes the messages.
"""

from __future__ import annotations

from typing import Any

import amqp  # type: ignore[import-untyped]
from amqp import method_framing


def register() -> None:
    """Have py-amqp read what it is sent in this way, in this process."""
    method_framing.Message = Message


class Message(amqp.Message):  # type: ignore[misc]
    """A message that was sent by anybody."""

    def _load_properties(self, class_id: Any, buf: bytes, offset: int) -> int:
        try:
            return int(super()._load_properties(class_id, buf, offset))
        except Exception:  # noqa: BLE001 - the publisher's fault, whatever it is
            self.properties: dict[str, object] = {}
            return offset
