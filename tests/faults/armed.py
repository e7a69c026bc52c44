"""A process of the product that watches its own edges, and dies at the point that it finds armed.

`python -m tests.faults.armed FOLDER` loads the product with every edge watched, and then is told on its standard input
what to start: each line, `{"argv": …, "log": …, "environ": …}`, becomes a process of its own, forked from this one and
so up in no time. It answers with the process's id. Its end is theirs.

The product itself has no such points: they are written into its modules while these are imported here.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.points import CROSSING, ENDING, SENDING, modules, rewrite

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from importlib.machinery import ModuleSpec

ARMED, REACHED, FIRED = "armed", "reached", "fired"
#: What the processes would import first; loaded once, and not by each of them.
PROGRAMS = (
    "worker.celery",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.concurrency.thread",
)
HALF = 4
"""Before the request, before the form's head, and before each of its pieces a driver asks its guard: when it asks for
the fourth time, one of the two pieces is out that a slice has here."""
_PR_SET_PDEATHSIG = 1


class Watch:
    """Notes which points are passed, and dies at an armed one: one process, once."""

    def __init__(self, folder: Path) -> None:
        self._armed, self._reached, self._fired = (folder / name for name in (ARMED, REACHED, FIRED))

    def reach(self, point: str) -> None:
        """Pass a point, or end here."""
        os.close(os.open(self._reached / point, os.O_WRONLY | os.O_CREAT, 0o600))
        try:
            (self._armed / point).rename(self._fired / point)  # one process of all can do so
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def cross(self, edge: str, call: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Call, with a point before and one after, whatever comes of it."""
        self.reach(f"{edge}:before")
        try:
            return call(*args, **named)
        finally:
            self.reach(f"{edge}:after")

    def send(self, edge: str, call: Callable[..., Any], /, *args: Any) -> Any:
        """The same, with a point in the middle of the body."""
        *others, guard = args
        return self.cross(edge, call, *others, _Halfway(guard, lambda: self.reach(f"{edge}:middle")))

    @contextmanager
    def end(self, edge: str, transaction: AbstractContextManager[Any]) -> Iterator[Any]:
        """Keep a transaction, with a point before and one after its commit; a rollback is none."""
        whole = False
        with transaction as kept:
            yield kept
            whole = True
            self.reach(f"{edge}:before")
        if whole:  # a transaction may also end here with its rollback swallowed
            self.reach(f"{edge}:after")


class _Halfway:
    def __init__(self, guard: Any, reach: Callable[[], None]) -> None:
        self._guard, self._reach = guard, reach
        self._times = 0

    def check(self) -> None:
        self._guard.check()
        self._times += 1
        if self._times == HALF:
            self._reach()

    def remaining_s(self) -> float:
        return float(self._guard.remaining_s())

    def acknowledged(self, size_bytes: int) -> None:
        self._guard.acknowledged(size_bytes)


class Loader(SourceFileLoader):
    """Loads a module with its edges watched; never from compiled files, nor into them."""

    def __init__(self, name: str, path: str, watch: Watch) -> None:
        super().__init__(name, path)
        self._watch = watch

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the rewritten source."""
        tree = rewrite(fullname, ast.parse(self.get_data(self.path), self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it, with what its edges are watched by."""
        watch = self._watch
        vars(module).update({CROSSING: watch.cross, SENDING: watch.send, ENDING: watch.end})
        super().exec_module(module)


class Finder:
    """Finds the modules that have edges before anybody else does."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Find a module of the product; None for all others."""
        file = modules().get(name)
        if file is None:
            return None
        loader = Loader(name, str(file), self._watch)
        packages = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=packages)


def main() -> None:
    """Load the product, then start what is wished for, until the wishes end."""
    sys.meta_path.insert(0, Finder(Watch(Path(sys.argv[1]))))
    for program in PROGRAMS:
        importlib.import_module(program)
    importlib.import_module("api.app")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    me = os.getpid()
    for line in sys.stdin:
        wish = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(me, **wish)
            return
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(parent: int, argv: Sequence[str], log: str, environ: dict[str, str]) -> None:
    """Be the process that was wished for: `python -m MODULE …`."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, standard)
    os.environ.clear()
    os.environ.update(environ)
    _, dash_m, module, *words = argv
    assert dash_m == "-m", argv
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
