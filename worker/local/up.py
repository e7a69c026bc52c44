"""`sliceway up`: runs everything on this machine until Ctrl-C. The next start continues with the same data."""

from __future__ import annotations

import os
import shlex
import time
from typing import TYPE_CHECKING

from worker.local.state import BUCKET, State, default_state
from worker.local.supervisor import Stopped
from worker.local.system import FLOWER_USER, Running, reachable, running_system
from worker.urls import Host

if TYPE_CHECKING:
    from pathlib import Path

_CURLS_PROXIES = ("http_proxy", "all_proxy", "ALL_PROXY")


def run(folder: Path | None = None) -> None:
    """Start everything, print the addresses, and return when a signal has stopped it.

    Args:
        folder: the state folder; None is the default.

    Raises:
        SlicewayError: a service does not start; all others are stopped.
    """
    began = time.monotonic()
    state = State.at(folder or default_state())
    try:
        with running_system(state) as running:
            _print(f"Sliceway is up after {time.monotonic() - began:.1f} s.", *_where(state, running), "")
            _print(*_example(state, running), "", "Ctrl-C stops everything; the next start goes on from there.")
            running.supervisor.wait()
            _print("", "Stopping.")
    except Stopped:
        _print("Stopped before everything was up.")


def _where(state: State, running: Running) -> list[str]:
    settings = running.settings
    flower_host = Host(reachable(settings.flower_host), settings.flower_port)
    flower_url = f"http://{flower_host}{settings.flower_root_path or ''}"
    flower = f"{flower_url}  user {FLOWER_USER}, password in {state.flower_password}"
    key = f"{running.api_key}  (kept in {state.api_key})" if running.key_is_new else f"in {state.api_key}"
    lines = [
        ("API", f"{settings.api_url}  described in /openapi.json"),
        ("Key", key),
        ("Flower", flower),
        ("Stores", f"{', '.join(settings.profiles.stores)}  (in {settings.stores_file})"),
        ("Roots", ", ".join(f"{root.name} = {root.path}" for root in settings.profiles.roots.values())),
        ("Logs", str(state.logs)),
    ]
    defaults = {name: value for name, value in os.environ.items() if name != "SLICEWAY_STATE_DIR"}
    if state.folder != default_state(defaults).absolute():
        export = f"`export SLICEWAY_STATE_DIR={shlex.quote(str(state.folder))}` first, in another terminal"
        lines.append(("Commands", export))
    if running.emulator_url:
        lines.insert(3, ("Emulator", f"{running.emulator_url}  bucket {BUCKET}, behind the store main"))
    return [f"  {name:<9}{text}" for name, text in lines]


def _example(state: State, running: Running) -> list[str]:
    """The lines of a first upload to copy; none without the emulator's store."""
    if not running.emulator_url:
        return []
    job = '{"source": {"kind": "file", "root": "files", "path": "hello.bin"}, "store": "main", "key": "hello.bin"}'
    past_proxy = "--noproxy '*' " if any(os.environ.get(name) for name in _CURLS_PROXIES) else ""
    file, key = (shlex.quote(str(path)) for path in (state.files / "hello.bin", state.api_key))
    return [
        "A first upload:",
        f"  head -c 10000000 /dev/urandom > {file}",
        f'  curl {past_proxy}{running.settings.api_url}/v1/jobs -H "Authorization: Bearer $(cat {key})" \\',
        f"    -H 'Content-Type: application/json' -d '{job}'",
    ]


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - the command's output
