"""Ports for servers that start in a moment: two that ask at once get two."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from worker.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKS = "import sys; from worker.local.ports import free_port; print(free_port(int(sys.argv[1])), flush=True); input()"


@contextmanager
def another(wanted: int) -> Iterator[int]:
    """What another program of ours gets that asks for a port and has not used it yet."""
    with subprocess.Popen(
        [sys.executable, "-c", ASKS, str(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_port_is_given_to_one_program_at_a_time() -> None:
    with another(0) as first, another(first) as second:
        assert second != first


def test_a_port_can_be_had_again_when_its_program_has_ended() -> None:
    """At once; a program that is none of ours may have been faster with one of them, not with five."""
    again = []
    for _ in range(5):
        with another(0) as port:
            pass
        again.append(free_port(port) == port)
    assert any(again)


def test_who_was_given_a_port_may_ask_for_it_again() -> None:
    port = free_port()
    assert free_port(port) == port
    with another(port) as others:
        assert others != port


def test_a_program_that_asks_for_many_has_files_left() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    latest = [free_port() for _ in range(300)][-1]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 64
    with another(latest) as others:
        assert others != latest
