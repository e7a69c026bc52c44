"""Every place where the product can be cut off to some effect, found in its own source: nothing is listed by hand.

An *edge* is a call that leaves the process with something to lose: a statement that commits, a request to the store, a
message to the broker, the end of a transaction. It has a point before and one after it, and one in the middle where
bytes of a file go out. Points are named after the code: `tasks.slice._put:put_slice:after`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(__file__).parents[2]
#: Where work is done: what runs in the processes of API and worker.
ROOMS = (
    "api",
    "worker/celery.py",
    "worker/broker",
    "worker/dispatch",
    "worker/jobs/commands.py",
    "worker/jobs/submit.py",
    "worker/runtime",
    "worker/tasks",
)
STATEMENTS = tuple(
    f"worker.jobs.{room}"
    for room in ("transitions", "leases", "workers", "leadership", "breakers", "due", "commands", "quota", "submit")
)
STORE, BROKER = "worker.stores.base", "worker.broker.publisher"
#: The broker's calls that leave nothing behind; all its others are edges.
BROKER_READS = frozenset({"length", "close"})

_SQL = {path.stem: path.read_text() for path in sorted((HOME / "worker/jobs/sql").glob("*.sql"))}
_WRITES = re.compile(r"\bINSERT INTO\b|\bDELETE FROM\b|(?<!KEY )(?<!FOR )\bUPDATE [a-z]|\bNOTIFY\b|\bpg_notify\b")
_COMMENT = re.compile(r"--.*")


class Unclear(Exception):
    """A call that cannot be told from the source; says where it is, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One such call.

    Attributes:
        name: `module.scope:operation`, with a number from the second of its kind in a scope on.
        streams: a file's bytes go out in it.
        commits: it is the end of a transaction.
    """

    name: str
    streams: bool = False
    commits: bool = False

    @property
    def points(self) -> tuple[str, ...]:
        """Its points, in the order in which they are passed."""
        return tuple(f"{self.name}:{when}" for when in ("before", *(["middle"] if self.streams else []), "after"))


@dataclass(frozen=True, slots=True)
class Calls:
    """What an edge is a call of.

    Attributes:
        statements: functions that commit, as `module.name`.
        store: operations of a store -> whether they send a file's bytes.
        broker: operations of the broker.
    """

    statements: frozenset[str]
    store: dict[str, bool]
    broker: frozenset[str]


@functools.cache
def modules() -> dict[str, Path]:
    """Return the modules in which edges are looked for."""
    named = (HOME / room for room in ROOMS)
    files = sorted(file for room in named for file in ([room] if room.suffix else room.rglob("*.py")))
    return {_module_of(file): file for file in files}


def _module_of(file: Path) -> str:
    return file.relative_to(HOME).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def _path_of(module: str) -> Path:
    return HOME / (module.replace(".", "/") + ".py")


@functools.cache
def calls() -> Calls:
    """Return what counts as an edge's call, by what the product's own modules say."""
    statements: set[str] = set()
    for module in STATEMENTS:
        statements |= committing(module, ast.parse(_path_of(module).read_text()), statements)
    store = {
        method.name: "body" in _parameters(method)
        for method in _methods(_path_of(STORE), "StoreDriver")
        if "guard" in _parameters(method)  # what asks a guard is a request
    }
    broker = {method.name for method in _methods(_path_of(BROKER), "Broker") if not method.name.startswith("_")}
    return Calls(frozenset(statements), store, frozenset(broker - BROKER_READS))


def committing(module: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Return the public functions of a module that take a transaction first and write, themselves or by ``known``."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    imports = _imports(tree)
    return {
        f"{module}.{function.name}"
        for function in functions
        if not function.name.startswith("_")
        and _parameters(function)[:1] == ["tx"]
        and (_writes(function) or any(_dotted(node, imports) in known for node in ast.walk(function)))
    }


def _writes(function: ast.FunctionDef) -> bool:
    texts = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
    told = ast.get_docstring(function, clean=False)
    given = [_SQL.get(text, text) for text in texts if isinstance(text, str) and text != told]
    return any(_WRITES.search(_COMMENT.sub("", text)) for text in given)


def _methods(path: Path, name: str) -> list[ast.FunctionDef]:
    [found] = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return [node for node in found.body if isinstance(node, ast.FunctionDef)]


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return what the names that a module imports stand for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return found


def _dotted(node: ast.AST, imports: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return imports.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imports:
        return f"{imports[node.value.id]}.{node.attr}"
    return None


def _last_word(node: ast.AST) -> str:
    """Return the last name of an expression such as `self.guard`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _owner(function: ast.AST) -> str:
    """Return the last name of what a method is called on."""
    return _last_word(function.value) if isinstance(function, ast.Attribute) else ""


class _Search(ast.NodeVisitor):
    """Walks a module in the order of its source."""

    def __init__(self, module: str, tree: ast.Module, wanted: Calls) -> None:
        self._module, self._imports, self._wanted = module, _imports(tree), wanted
        self._scope: list[str] = []
        self._times: Counter[str] = Counter()
        self._called: set[ast.AST] = set()
        self.found: dict[ast.AST, Edge] = {}
        self.visit(tree)

    def _visit_scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_scope  # noqa: N815 - ast's own names

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            called = item.context_expr
            if isinstance(called, ast.Call) and _last_word(called.func) == "transaction":
                self._note(called, "commit", commits=True)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = _dotted(node.func, self._imports)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        word = _last_word(node.func)
        if dotted in self._wanted.statements:
            self._called.add(node.func)
            self._note(node, word)
        elif word in self._wanted.store and any(_last_word(argument) == "guard" for argument in given):
            self._note(node, word, streams=self._wanted.store[word])
        elif word in self._wanted.broker and _owner(node.func) in {"broker", "_broker"}:
            self._note(node, word)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._refuse_loose(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._refuse_loose(node)
        self.generic_visit(node)

    def _refuse_loose(self, node: ast.Name | ast.Attribute) -> None:
        dotted = _dotted(node, self._imports)
        if dotted in self._wanted.statements and node not in self._called:
            raise Unclear(
                f"{self._module}:{node.lineno}: {dotted} is handed on and called elsewhere: call it here, in a lambda"
            )

    def _note(self, node: ast.Call, operation: str, *, streams: bool = False, commits: bool = False) -> None:
        name = ".".join([self._module.removeprefix("worker."), *self._scope]) + f":{operation}"
        self._times[name] += 1
        if (times := self._times[name]) > 1:
            name += f".{times}"
        self.found[node] = Edge(name, streams=streams, commits=commits)


def find(module: str, tree: ast.Module, wanted: Calls | None = None) -> dict[ast.AST, Edge]:
    """Return the edges of a module, by the call that each is.

    Raises:
        Unclear: a statement is not called but handed on.
    """
    return _Search(module, tree, wanted or calls()).found


def edges() -> Iterator[Edge]:
    """Yield all edges of the product."""
    for module, path in modules().items():
        yield from find(module, ast.parse(path.read_text())).values()


class _Rewrite(ast.NodeTransformer):
    def __init__(self, found: dict[ast.AST, Edge]) -> None:
        self._found = found

    def visit_Call(self, node: ast.Call) -> ast.Call:
        edge = self._found.get(node)
        self.generic_visit(node)
        if edge is None:
            return node
        name = ast.Constant(edge.name)
        if edge.commits:
            called = ast.Call(ast.Name(ENDING, ast.Load()), [name, node], [])
        else:
            word = SENDING if edge.streams else CROSSING
            called = ast.Call(ast.Name(word, ast.Load()), [name, node.func, *node.args], node.keywords)
        return ast.copy_location(called, node)


#: Names by which a rewritten module calls those who watch its edges.
CROSSING, SENDING, ENDING = "__crossing__", "__sending__", "__ending__"


def rewrite(module: str, tree: ast.Module, wanted: Calls | None = None) -> ast.Module:
    """Let the edges of a module be watched: `CROSSING` or `SENDING` makes the call, `ENDING` keeps the transaction."""
    found = find(module, tree, wanted)
    rewritten: ast.Module = _Rewrite(found).visit(tree)
    return ast.fix_missing_locations(rewritten)
