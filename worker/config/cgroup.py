"""The limits of this process's control groups (version 1 or 2), which a container may set below the machine's."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SELF = Path("/proc/self")


def processors(proc: Path = _SELF) -> int:
    """Return how many processors this process may use, by its CPU affinity and the quotas of its groups.

    Args:
        proc: folder of the process in /proc, with `cgroup` and `mountinfo`; another one in tests.
    """
    quotas = [quota for quota in map(_quota, _folders("cpu", proc)) if quota is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, quotas)]))


def killed_for_memory(proc: Path = _SELF) -> int:
    """Return how many processes of this process's group the kernel has killed for lack of memory; 0 if unknown.

    The kernel counts in the group of the killed process, also when the limit is that of a group above.
    """
    for folder in _folders("memory", proc):
        for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
            for line in _text(folder / name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def _quota(folder: Path) -> float | None:
    """Return the CPU quota of a group, in processors; None: unlimited."""
    with suppress(ValueError):
        if fields := _text(folder / "cpu.max").split():
            return None if fields[0] == "max" else int(fields[0]) / int(fields[1])
        quota_us = int(_text(folder / "cpu.cfs_quota_us"))
        return quota_us / int(_text(folder / "cpu.cfs_period_us")) if quota_us > 0 else None
    return None


def _folders(controller: str, proc: Path) -> Iterator[Path]:
    """Yield the folders of the groups that may limit the process: its own group, then the visible groups above."""
    groups = dict(_groups(proc))
    for kind, options, root, place in _mounts(proc):
        if kind == "cgroup" and controller in options:
            group = groups.get(controller)
        elif kind == "cgroup2":
            group = groups.get("")
        else:
            continue
        if group is None:
            continue
        # in a container the mount shows a part of the tree only, and the path may be that in the whole tree
        own = place / os.path.relpath(group, root) if Path(group).is_relative_to(root) else place
        yield from [folder for folder in (own, *own.parents) if folder.is_relative_to(place)]


def _groups(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield controller and path of each line of `cgroup`; the line of version 2 has no controller."""
    for line in _text(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts(proc: Path) -> Iterator[tuple[str, list[str], str, Path]]:
    """Yield type, options, root within the file system, and mount point of each mount of control groups."""
    for line in _text(proc / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind.startswith("cgroup"):
            yield kind, options.split(","), fields[3], Path(fields[4])


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
