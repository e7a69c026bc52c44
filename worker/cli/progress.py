"""Follows a job to its end, with a bar on a terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from worker.cli.output import acknowledged_bytes, note_waiting, rate_text
from worker.client.api import is_final
from worker.client.retry import wait_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker.client.api import Client
    from worker.errors import SlicewayError

POLL_INTERVAL_S = 0.25
ENQUEUE_FOR_S = 60.0
"""How long a job is tried to be enqueued while the API or its database is away, or says that it is too much."""
FOLLOW_FOR_S = 300.0
"""How long the API may be away while a job is followed: the upload does not need it."""
_MINUTE_S = 60


def enqueue(client: Client, wish: Mapping[str, Any], idempotency_key: str, *, quiet: bool = False) -> dict[str, Any]:
    """Return the job that was enqueued, once; the key makes it safe to send it again.

    Raises:
        SlicewayError: it was refused, or could not be enqueued in `ENQUEUE_FOR_S`.
    """
    return wait_out(
        lambda: client.enqueue(wish, idempotency_key),
        for_s=ENQUEUE_FOR_S,
        note=note_waiting(ENQUEUE_FOR_S, quiet=quiet),
    )


def wait_for(client: Client, job_id: str, wait_s: int) -> dict[str, Any]:
    """Return a job once it has ended or so many seconds are over, and at once if there are none to wait.

    Raises:
        SlicewayError: it cannot be seen, or the API is still away when the time is over.
    """
    until = time.monotonic() + wait_s
    left_s = wait_s
    while True:
        view = wait_out(
            lambda: client.job(job_id, wait_s=max(0, int(until - time.monotonic()))),
            for_s=left_s,
            note=lambda _: None,
        )
        left_s = int(until - time.monotonic())
        if left_s <= 0 or is_final(view):
            return view
        time.sleep(POLL_INTERVAL_S)  # an API that stops lets whoever waits go


def follow(client: Client, job_id: str, *, quiet: bool = False) -> dict[str, Any]:
    """Return the job once it has ended.

    Raises:
        Unreachable: the API has been away for `FOLLOW_FOR_S`.
        RefusedByApi: the job cannot be seen.
    """
    with _bar(quiet=quiet) as (show, note):
        while True:
            view = wait_out(lambda: client.job(job_id, wait_s=5 if quiet else 0), for_s=FOLLOW_FOR_S, note=note)
            show(view)
            if is_final(view):
                return view
            time.sleep(POLL_INTERVAL_S)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[SlicewayError], None]]]:
    """Lend what shows a job, and what shows that the API is waited for."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None, note_waiting(FOLLOW_FOR_S, quiet=quiet)
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(None), TextColumn("{task.fields[done]}"))
    pace_column = TextColumn("{task.fields[pace]}")
    with Progress(*columns, pace_column, console=console, transient=True, expand=True) as progress:
        task = progress.add_task("queued", total=None, done="", pace="")

        def show(view: dict[str, Any]) -> None:
            done = view["progress"]
            progress.update(
                task,
                description=view["state"],
                total=done["size_bytes"],
                completed=acknowledged_bytes(done),
                done=_done(done),
                pace=escape(pace(view)),
            )

        yield show, lambda error: progress.update(task, pace=escape(f"waits: {error.message}"))


def _done(progress: Mapping[str, Any]) -> str:
    size = "" if progress["size_bytes"] is None else f" of {progress['size_bytes']:,}"
    return f"{acknowledged_bytes(progress):,}{size} bytes"


def pace(view: dict[str, Any]) -> str:
    """Return in words how fast a job is, how long it will take, or what it waits for."""
    if view["throughput_bytes_per_s"]:
        eta = "" if view["eta_s"] is None else f", {_duration(view['eta_s'])} left"
        return f"{rate_text(view['throughput_bytes_per_s'])}{eta}"
    waiting = view["waiting"] or {}
    if waiting.get("paused_at"):
        return f"paused: {waiting.get('pause_reason') or 'by hand'}"
    if waiting and view["error"]:
        return f"waits: {view['error']['message']}"
    return ""


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
