"""A process of the product with a crash point on each side of every edge: it kills itself at a point that is armed.

`python -m tests.faults.crash_injector FOLDER` loads the product with its edges rewritten, and reads commands from its
standard input. It forks a process for each line, `{"argv": …, "log": …, "environ": …}`, and writes the process's id to
its standard output. Its children die with it. The product has no crash points itself: the import adds them here.
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
#: What every process imports: loaded once, before the forks.
PROGRAMS = (
    "worker.celery",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.concurrency.thread",
)
HALF = 4
"""The check of its guard at which a driver is in the middle of a slice. It checks before the request, before the form's
head, and before each of the two pieces of a slice: at the fourth check it has sent one of them."""
_PR_SET_PDEATHSIG = 1


class CrashInjector:
    """Records which points the process passes, and kills it at an armed one: one process, once."""

    def __init__(self, folder: Path) -> None:
        self._armed, self._reached, self._fired = (folder / name for name in (ARMED, REACHED, FIRED))

    def reach(self, point: str) -> None:
        """Record a point, and kill the process there if it is armed."""
        os.close(os.open(self._reached / point, os.O_WRONLY | os.O_CREAT, 0o600))
        try:
            (self._armed / point).rename(self._fired / point)  # only one process succeeds
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def cross(self, edge: str, call: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Call, with a point before and one after, also after an exception."""
        self.reach(f"{edge}:before")
        try:
            return call(*args, **named)
        finally:
            self.reach(f"{edge}:after")

    def send(self, edge: str, call: Callable[..., Any], /, *args: Any) -> Any:
        """Call, with a third point in the middle of the body."""
        *others, guard = args
        return self.cross(edge, call, *others, _Halfway(guard, lambda: self.reach(f"{edge}:middle")))

    @contextmanager
    def end(self, edge: str, transaction: AbstractContextManager[Any]) -> Iterator[Any]:
        """Run a transaction, with a point before and one after its commit; a rollback passes none."""
        commits = False
        with transaction as entered:
            yield entered
            commits = True
            self.reach(f"{edge}:before")
        if commits:  # a context manager that swallows its exception ends here, too
            self.reach(f"{edge}:after")


class _Halfway:
    def __init__(self, guard: Any, reach: Callable[[], None]) -> None:
        self._guard, self._reach = guard, reach
        self._checks = 0

    def check(self) -> None:
        self._guard.check()
        self._checks += 1
        if self._checks == HALF:
            self._reach()

    def remaining_s(self) -> float:
        return float(self._guard.remaining_s())

    def acknowledged(self, size_bytes: int) -> None:
        self._guard.acknowledged(size_bytes)


class Loader(SourceFileLoader):
    """Loads a module with its edges rewritten; it neither reads nor writes compiled files."""

    def __init__(self, name: str, path: str, injector: CrashInjector) -> None:
        super().__init__(name, path)
        self._injector = injector

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the rewritten source."""
        tree = rewrite(fullname, ast.parse(self.get_data(self.path), self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it, with the functions that its edges call."""
        injector = self._injector
        vars(module).update({CROSSING: injector.cross, SENDING: injector.send, ENDING: injector.end})
        super().exec_module(module)


class Finder:
    """Finds the modules that have edges, ahead of Python's own finders."""

    def __init__(self, injector: CrashInjector) -> None:
        self._injector = injector

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Find a module that has edges; None for all others."""
        file = modules().get(name)
        if file is None:
            return None
        loader = Loader(name, str(file), self._injector)
        packages = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=packages)


def main() -> None:
    """Load the product, then fork a process for each command until the input ends."""
    sys.meta_path.insert(0, Finder(CrashInjector(Path(sys.argv[1]))))
    for program in (*PROGRAMS, "api.app", "api.application"):
        importlib.import_module(program)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    parent = os.getpid()
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(parent, **command)
            return
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(parent: int, argv: Sequence[str], log: str, environ: dict[str, str]) -> None:
    """Become the process `python -m MODULE …`."""
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
    _, dash_m, module, *arguments = argv
    assert dash_m == "-m", argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
