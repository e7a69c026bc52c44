"""What the control groups of this process allow, by version 1 or 2: in a container less than the machine has."""

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
    """Return how many processors this process may use: at most those it may run on, and at most its groups' quota.

    Args:
        proc: folder of the process in /proc, whose `cgroup` and `mountinfo` are read; for tests.
    """
    quotas = [quota for quota in map(_quota, _folders("cpu", proc)) if quota is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, quotas)]))


def killed_for_memory(proc: Path = _SELF) -> int:
    """Return how many processes of this process's group the kernel has killed so far for want of memory; 0 if unknown.

    A group above with the limit counts here, too: the kernel counts where the killed process was.
    """
    for folder in _folders("memory", proc):
        for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
            for line in _text(folder / name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def _quota(folder: Path) -> float | None:
    """Return the processors' time that a group has, in processors; None: as much as there is."""
    with suppress(ValueError):
        if words := _text(folder / "cpu.max").split():
            return None if words[0] == "max" else int(words[0]) / int(words[1])
        quota_us = int(_text(folder / "cpu.cfs_quota_us"))
        return quota_us / int(_text(folder / "cpu.cfs_period_us")) if quota_us > 0 else None
    return None


def _folders(controller: str, proc: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups that may limit it: its own, then those above that are to be seen."""
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
        # in a container the mount shows a part of the tree only, and the path may be that of the whole
        own = place / os.path.relpath(group, root) if Path(group).is_relative_to(root) else place
        yield from [folder for folder in (own, *own.parents) if folder.is_relative_to(place)]


def _groups(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield controller and path of each line of `cgroup`; version 2 has one line, without a controller."""
    for line in _text(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts(proc: Path) -> Iterator[tuple[str, list[str], str, Path]]:
    """Yield kind, options, root within the file system, and place of each mount of control groups."""
    for line in _text(proc / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        words, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind.startswith("cgroup"):
            yield kind, options.split(","), words[3], Path(words[4])


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
