"""Follows a job to its end, with a bar on a terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from worker.client import Client, is_final
from worker.surroundings import Unreachable
from worker.terminal import acknowledged_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_EVERY_S = 0.25
PATIENCE_S = 60.0
"""How long the API may be away: the upload does not need it."""
MIB = 1024 * 1024
_MINUTE_S = 60


def follow(client: Client, job_id: str, *, quiet: bool = False) -> dict[str, Any]:
    """Return the job once it has ended.

    Raises:
        Unreachable: the API has been away for `PATIENCE_S`.
        RefusedByApi: the job cannot be seen.
    """
    heard_at = time.monotonic()
    with _bar(quiet=quiet) as show:
        while True:
            try:
                view = client.job(job_id, wait_s=5 if quiet else 0)
            except Unreachable:
                if time.monotonic() - heard_at > PATIENCE_S:
                    raise
            else:
                heard_at = time.monotonic()
                show(view)
                if is_final(view):
                    return view
            time.sleep(LOOK_EVERY_S)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=console, transient=True) as progress:
        task = progress.add_task("queued", total=None, pace="")

        def show(view: dict[str, Any]) -> None:
            done = view["progress"]
            progress.update(
                task,
                description=view["state"],
                total=done["size_bytes"],
                completed=acknowledged_bytes(done),
                pace=pace(view),
            )

        yield show


def pace(view: dict[str, Any]) -> str:
    """Return in words how fast a job is, how long it will take, or what it waits for."""
    if view["throughput_bytes_per_s"]:
        eta = "" if view["eta_s"] is None else f", {_duration(view['eta_s'])} left"
        return f"{view['throughput_bytes_per_s'] / MIB:.1f} MiB/s{eta}"
    waiting = view["waiting"] or {}
    if waiting.get("paused_at"):
        return f"paused: {waiting['pause_reason']}"
    if waiting and view["error"]:
        return f"waits: {view['error']['message']}"
    return ""


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
