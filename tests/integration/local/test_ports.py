"""Ports for servers that start soon: two callers at once get two ports."""

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
    """Yield the port that another process gets, before its server listens."""
    with subprocess.Popen(
        [sys.executable, "-c", ASKS, str(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_port_is_reserved_for_one_process_at_a_time() -> None:
    with another(0) as first, another(first) as second:
        assert second != first


def test_a_port_is_free_when_its_process_has_ended() -> None:
    """At once. Another program may take one of the five ports meanwhile, but not all."""
    freed = []
    for _ in range(5):
        with another(0) as port:
            pass
        freed.append(free_port(port) == port)
    assert any(freed)


def test_a_process_gets_its_own_port_a_second_time() -> None:
    port = free_port()
    assert free_port(port) == port
    with another(port) as others:
        assert others != port


def test_a_process_with_many_ports_keeps_few_files_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    latest = [free_port() for _ in range(300)][-1]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 64
    with another(latest) as others:
        assert others != latest
