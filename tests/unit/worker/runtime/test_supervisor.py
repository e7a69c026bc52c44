"""A supervisor knows which of its children the kernel has killed for lack of memory."""

from __future__ import annotations

import signal

from worker.runtime.supervisor import MemoryKills


def test_each_kill_of_the_kernel_explains_one_end() -> None:
    killed = 4  # before this supervisor began
    kills = MemoryKills(lambda: killed)
    assert not kills.explain(-signal.SIGKILL), "a kill by hand"
    killed = 6
    assert not kills.explain(1)
    assert not kills.explain(-signal.SIGTERM)
    assert [kills.explain(-signal.SIGKILL) for _ in range(3)] == [True, True, False]
