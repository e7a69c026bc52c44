"""The limits of a container, from its control groups of either version and each way of mounting."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from worker.config import cgroup

if TYPE_CHECKING:
    from pathlib import Path

HAVE = len(os.sched_getaffinity(0))


class Groups:
    """The /proc files of a process and the file systems of its control groups."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.place = folder / "proc", folder / "cgroup"
        self.proc.mkdir()

    def mounted(self, kind: str, groups: str, root: str = "/", options: str = "rw,cpu,cpuacct") -> Groups:
        (self.proc / "cgroup").write_text(groups)
        mount = f"31 23 0:28 {root} {self.place} ro,nosuid shared:9 - {kind} cgroup {options}\n"
        (self.proc / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/vda1 rw\n" + mount)
        return self

    def has(self, group: str, **files: str) -> Groups:
        folder = self.place / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")
        return self


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", HAVE), ("100000 100000", 1), ("20000 100000", 1), ("100001 100000", 2), ("6400000 100000", HAVE)],
)
def test_the_quota_of_version_2(groups: Groups, quota: str, expected: int) -> None:
    groups.mounted("cgroup2", "0::/\n").has(".", cpu__max=quota)
    assert cgroup.processors(groups.proc) == min(HAVE, expected)


def test_the_least_quota_of_the_groups_above_counts(groups: Groups) -> None:
    groups.mounted("cgroup2", "0::/pods/pod1/main\n").has("pods/pod1/main", cpu__max="max 100000")
    groups.has("pods/pod1", cpu__max="100000 100000").has("pods", cpu__max="max 100000")
    assert cgroup.processors(groups.proc) == 1


@pytest.mark.parametrize(("quota", "expected"), [("-1", HAVE), ("50000", 1), ("100000", 1), ("6400000", HAVE)])
@pytest.mark.parametrize("root", ["/", "/docker/abc"])
def test_the_quota_of_version_1_in_a_container_and_outside(
    groups: Groups, root: str, quota: str, expected: int
) -> None:
    groups.mounted("cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n", root)
    own = "docker/abc" if root == "/" else "."
    groups.has(own, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert cgroup.processors(groups.proc) == expected


def test_a_hidden_group_is_that_of_the_mount(groups: Groups) -> None:
    groups.mounted("cgroup", "3:cpu,cpuacct:/elsewhere\n", "/docker/abc")
    groups.has(".", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert cgroup.processors(groups.proc) == 1


def test_a_machine_without_control_groups_has_its_processors(groups: Groups) -> None:
    assert cgroup.processors(groups.proc) == HAVE
    assert cgroup.killed_for_memory(groups.proc) == 0


def test_processors_that_this_process_may_not_run_on_do_not_count() -> None:
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        " from worker.config.settings import Settings; print(Settings.model_fields['worker_processes'].get_default("
        "call_default_factory=True))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "1\n"


def test_the_kernels_count_of_kills_by_either_version(groups: Groups) -> None:
    groups.mounted("cgroup2", "0::/pod\n").has(
        "pod", memory__events="low 0\nmax 40\noom 3\noom_kill 2\noom_group_kill 0"
    )
    groups.has(".", memory__events="oom_kill 9")
    assert cgroup.killed_for_memory(groups.proc) == 2
    groups.mounted("cgroup", "4:memory:/pod\n", options="rw,memory")
    groups.has("pod", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 5")
    (groups.place / "pod/memory.events").unlink()
    assert cgroup.killed_for_memory(groups.proc) == 5
