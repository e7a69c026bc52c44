"""A RabbitMQ message with unreadable properties arrives without properties, and the next message is complete."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import method_framing, spec

from worker.broker import amqp_guard


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(entry: bytes) -> bytes:
    return struct.pack(">I", len(entry)) + entry


def delivered(properties: bytes) -> list[Any]:
    """Return the messages that py-amqp reads from one with these properties, flags first, and the body `[]`."""
    got: list[Any] = []
    handle = method_framing.frame_handler(
        SimpleNamespace(bytes_recv=0), lambda _channel, _method, _arguments, message: got.append(message)
    )
    handle((1, 1, struct.pack(">HH", *spec.Basic.Deliver)))
    handle((2, 1, struct.pack(">HxxQ", spec.Basic.CLASS_ID, 2) + properties))
    handle((3, 1, b"[]"))
    return got


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_framing, "Message", method_framing.Message)  # put back after the test
    amqp_guard.register()


@pytest.mark.parametrize(
    "properties",
    [
        b"\x80\x00" + text(b"\xff\xfe"),
        b"\x20\x00" + table(text(b"id") + b"?"),
        b"\x80",
    ],
    ids=["content-type", "unknown-kind", "cut-off"],
)
def test_what_cannot_be_read_arrives_without_properties(properties: bytes) -> None:
    [message] = delivered(properties)
    assert (message.properties, message.body) == ({}, b"[]")


def test_what_can_be_read_arrives_as_it_is() -> None:
    [message] = delivered(b"\x80\x00" + text(b"application/json"))
    assert (message.properties, message.body) == ({"content_type": "application/json"}, b"[]")
