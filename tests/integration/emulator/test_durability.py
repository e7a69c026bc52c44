"""Acknowledged data survives a kill of the process, and no other data appears."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.emulator.client import SLICE, cos_process, kill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def run_cos(tmp_path: Path) -> Callable[[], Any]:
    """Runs an emulator as a process of its own, each time on the same folder."""
    return functools.partial(cos_process, tmp_path / "durable")


class Sender:
    """Sends slices of one file until the connection ends; records which were sent and which acknowledged."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.session = ""
        self.sent: set[int] = set()
        self.acknowledged: set[int] = set()

    def start(self, cos: Any, offsets: list[int]) -> threading.Thread:
        thread = threading.Thread(target=self._send, args=(cos, offsets))
        thread.start()
        return thread

    def _send(self, cos: Any, offsets: list[int]) -> None:
        for offset in offsets:
            self.sent.add(offset)
            try:
                response = cos.send("a.bin", self.session, offset, self.data[offset : offset + SLICE])
            except httpx.TransportError:
                return
            if response.json()["code"] == 0:
                self.acknowledged.add(offset)


def test_every_acknowledged_slice_survives_a_kill(run_cos: Callable[[], Any]) -> None:
    """Two senders and a kill at a random moment, five times; then a finish and a comparison."""
    slices = 24
    sender = Sender(os.urandom(slices * SLICE))
    rng = random.Random(5)
    for _ in range(5):
        with run_cos() as cos:
            missing = _missing(cos, sender)
            stop_at = rng.randint(1, 4)
            threads = [sender.start(cos, missing[first:stop_at:2]) for first in (0, 1)]
            cos.control.requests(op="data", code=0, count=rng.randint(1, stop_at), timeout_s=120)
            kill(cos)
            for thread in threads:
                thread.join(120)
    with run_cos() as cos:
        sender.start(cos, _missing(cos, sender)).join(120)
        assert cos.finish("a.bin", sender.session, len(sender.data)).json()["code"] == 0
        kill(cos)
    with run_cos() as cos:
        assert cos.get("a.bin").content == sender.data
        assert cos.finish("a.bin", sender.session, len(sender.data)).json()["code"] == 0
        assert cos.stat("a.bin").json()["data"]["filelen"] == len(sender.data)


def _missing(cos: Any, sender: Sender) -> list[int]:
    """Offsets that the store lacks; it must have all acknowledged slices and only slices that were sent."""
    sender.session = sender.session or cos.begin("a.bin", len(sender.data))
    listed = cos.list("a.bin").json()["data"]
    held = {part["offset"] for part in listed["listparts"]}
    assert listed["session"] == sender.session
    assert sender.acknowledged <= held <= sender.sent
    return [offset for offset in range(0, len(sender.data), SLICE) if offset not in held]


def test_a_slice_stored_without_a_response_survives_a_kill(run_cos: Callable[[], Any]) -> None:
    with run_cos() as cos:
        sender = Sender(bytes(2 * SLICE))
        sender.session = cos.begin("a.bin", 2 * SLICE)
        cos.control.add_rule("hold", when="after", op="data", offset=0)
        cos.control.add_rule("hold", when="before", op="data", offset=SLICE)
        threads = [sender.start(cos, [offset]) for offset in (0, SLICE)]
        assert len(cos.control.requests(state="held", count=2, timeout_s=120)) == 2
        kill(cos)
        for thread in threads:
            thread.join(120)
    with run_cos() as cos:
        assert cos.list("a.bin").json()["data"]["listparts"] == [{"offset": 0, "datalen": SLICE}]


def test_a_finish_without_a_response_survives_a_kill(run_cos: Callable[[], Any]) -> None:
    data = os.urandom(SLICE)
    with run_cos() as cos:
        session = cos.begin("a.bin", SLICE)
        cos.send("a.bin", session, 0, data)
        cos.control.add_rule("hold", when="after", op="finish")
        thread = threading.Thread(target=_until_cut, args=(cos.finish, "a.bin", session, SLICE))
        thread.start()
        assert len(cos.control.requests(state="held", count=1, timeout_s=120)) == 1
        kill(cos)
        thread.join(120)
    with run_cos() as cos:
        assert "session" not in cos.list("a.bin").json()["data"]
        assert cos.finish("a.bin", session, SLICE).json()["code"] == 0
        assert cos.get("a.bin").content == data


def test_an_object_that_is_replaced_repeatedly_is_always_complete(run_cos: Callable[[], Any]) -> None:
    versions = [bytes([value]) * 100_000 for value in range(200)]
    acknowledged: list[int] = [0]

    def replace(cos: Any) -> None:
        for number in range(acknowledged[-1] + 1, len(versions)):
            assert cos.upload("a.bin", versions[number], insertOnly=0).json()["code"] == 0
            acknowledged.append(number)

    for run_number in range(4):
        with run_cos() as cos:
            if run_number:
                assert versions.index(cos.get("a.bin").content) in {acknowledged[-1], acknowledged[-1] + 1}
            thread = threading.Thread(target=_until_cut, args=(replace, cos))
            thread.start()
            cos.control.requests(op="upload", code=0, count=3 + run_number, timeout_s=120)
            kill(cos)
            thread.join(120)
    assert len(acknowledged) > 4 * 3


def _until_cut(work: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(httpx.TransportError):
        work(*arguments)


def test_content_without_a_record_is_removed_at_start(run_cos: Callable[[], Any], tmp_path: Path) -> None:
    with run_cos() as cos:
        cos.upload("a.bin", b"data")
        kill(cos)
    content = tmp_path / "durable" / "content"
    (content / "left-over").write_bytes(b"of a crash")
    with run_cos() as cos:
        assert cos.get("a.bin").content == b"data"
        assert len(list(content.iterdir())) == 1


def test_a_signal_ends_it_cleanly(run_cos: Callable[[], Any]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with run_cos() as cos:
            cos.upload("a.bin", b"data", insertOnly=0)
            cos.process.send_signal(number)
            assert cos.process.wait(10) == 0


def test_a_port_in_use_is_reported_in_one_line(run_cos: Callable[[], Any], tmp_path: Path) -> None:
    with run_cos() as cos:
        command = [sys.executable, "-m", "worker.emulator", "--data-dir", str(tmp_path / "x"), "--appid", "1"]
        command += ["--bucket", "b", "--secret-id", "i", "--secret-key", "fake-key", "--port", str(cos.address[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "choose another --port" in done.stderr
