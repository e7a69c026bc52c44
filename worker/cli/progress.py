"""Follows a job to its end, with a progress bar on a terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from worker.cli.output import acknowledged_bytes, rate_text, waiting_printer
from worker.client.retry import retry_temporary
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker.client.api import Client
    from worker.errors import SlicewayError

POLL_INTERVAL_S = 0.25
ENQUEUE_FOR_S = 60.0
"""How long `put` repeats the enqueue request while the API fails temporarily."""
FOLLOW_FOR_S = 300.0
"""How long the API may be away while `put` follows a job. The upload does not need the API."""
_MINUTE_S = 60


def enqueue(client: Client, job_spec: Mapping[str, Any], idempotency_key: str, *, quiet: bool) -> dict[str, Any]:
    """Enqueue a job and return it. The idempotency key makes it safe to repeat the request.

    Raises:
        SlicewayError: the API refused the job, or did not accept it within `ENQUEUE_FOR_S`.
    """
    return retry_temporary(
        lambda: client.enqueue(job_spec, idempotency_key),
        timeout_s=ENQUEUE_FOR_S,
        on_failure=waiting_printer(ENQUEUE_FOR_S, quiet=quiet),
    )


def wait_for(client: Client, job_id: str, wait_s: int) -> dict[str, Any]:
    """Return the job when it has ended or ``wait_s`` is over.

    Raises:
        SlicewayError: the key may not see the job, or the API is still away when the time is over.
    """
    until = time.monotonic() + wait_s
    left_s = wait_s
    while True:
        view = retry_temporary(
            lambda: client.job(job_id, wait_s=max(0, int(until - time.monotonic()))),
            timeout_s=left_s,
            on_failure=lambda _: None,
        )
        left_s = int(until - time.monotonic())
        if left_s <= 0 or view["state"] in FINAL:
            return view
        time.sleep(POLL_INTERVAL_S)  # an API that stops answers its long polls early


def follow(client: Client, job_id: str, *, quiet: bool) -> dict[str, Any]:
    """Return the job when it has ended.

    Raises:
        Unreachable: the API has been away for `FOLLOW_FOR_S`.
        RefusedByApi: the key may not see the job.
    """
    with _bar(quiet=quiet) as (show, show_failure):
        while True:
            view = retry_temporary(
                lambda: client.job(job_id, wait_s=5 if quiet else 0), timeout_s=FOLLOW_FOR_S, on_failure=show_failure
            )
            show(view)
            if view["state"] in FINAL:
                return view
            time.sleep(POLL_INTERVAL_S)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[SlicewayError], None]]]:
    """Yield the function that shows a job, and the function that shows a temporary failure of the API."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None, waiting_printer(FOLLOW_FOR_S, quiet=quiet)
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
    """Return how fast a job is and how long it will take, or what it waits for."""
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
