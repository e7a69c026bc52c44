"""Processes that somebody must always hold: each is started again when it has ended, as a service manager would."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROUND_S = 0.1
_END_S = 10.0


class Post:
    """One place and the process that holds it now."""

    def __init__(self, name: str, environ: Mapping[str, str], folder: Path, argv: Sequence[str] | None = None) -> None:
        """Start the first holder.

        Args:
            name: how the place is called in logs and acts.
            environ: of every holder.
            folder: where its log goes.
            argv: the command; None for a worker process as `sliceway worker` starts it.
        """
        self.name, self._environ, self._folder, self._argv = name, environ, folder, argv
        self._boots = 0
        self.holder = self._start()

    def _start(self) -> Worker:
        self._boots += 1
        return Worker(os.getpid() * 1000 + self._boots, self._environ, self._folder / f"{self.name}.log", self._argv)

    def refill(self) -> None:
        """Start a new holder if the last one has ended."""
        if not self.holder.alive:
            self.holder = self._start()


class Keeper(threading.Thread):
    """Refills posts until it is told to stop."""

    def __init__(self, posts: Sequence[Post]) -> None:
        """Keep these posts."""
        super().__init__(name="keeper", daemon=True)
        self.posts = posts
        self._ended = threading.Event()

    def run(self) -> None:
        """Go from post to post."""
        while not self._ended.wait(_ROUND_S):
            for post in self.posts:
                post.refill()

    def dismiss(self) -> None:
        """Stop refilling, then end every holder in order, all at once."""
        self._ended.set()
        self.join()
        for post in self.posts:
            if post.holder.alive:
                post.holder.thaw()
                post.holder.terminate()
        for post in self.posts:
            post.holder.ended(_END_S)
            post.holder.stop()


def processes_with(variable: str, value: str) -> list[int]:
    """Return the processes of ours in whose environment a variable has this value."""
    wanted, found = f"{variable}={value}".encode(), []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return found
