"""Finds every crash point of the product in its own source: none is listed by hand.

An *edge* is a call with an effect outside the process: a statement that commits, a request to the store, a message to
the broker, the end of a transaction. It has a crash point before and one after it, and one in the middle of a request
that sends bytes of a file. A point is named after the code: `tasks.slice._put:put_slice:after`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.jobs.statements import names, sql

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(__file__).parents[2]
#: The code that runs in the processes of API and worker.
SEARCHED = (
    "api",
    "worker/celery.py",
    "worker/broker",
    "worker/dispatch",
    "worker/jobs/commands.py",
    "worker/jobs/submit.py",
    "worker/maintenance",
    "worker/runtime",
    "worker/tasks",
)
STATEMENTS = tuple(
    f"worker.jobs.{name}"
    for name in (
        *("transitions", "control", "leases", "store_links", "workers", "leadership", "breakers", "due"),
        *("commands", "caps", "holds", "quota", "submit", "bulk"),
    )
)
STORE, BROKER = "worker.stores.base", "worker.broker.publisher"
#: The broker's calls without an effect; all its others are edges.
BROKER_READS = frozenset({"length", "close"})

_SQL = {name: sql(name) for name in names()}
_WRITES = re.compile(r"\bINSERT INTO\b|\bDELETE FROM\b|(?<!KEY )(?<!FOR )\bUPDATE [a-z]|\bNOTIFY\b|\bpg_notify\b")
_COMMENT = re.compile(r"--.*")


class AmbiguousCall(Exception):
    """The source does not show where a statement is called; the text says where to change it."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A call with an effect outside the process.

    Attributes:
        name: `module.scope:operation`, with a number from the second call of its kind in a scope on.
        streams: it sends bytes of a file.
        commits: it is the end of a transaction.
    """

    name: str
    streams: bool = False
    commits: bool = False

    @property
    def points(self) -> tuple[str, ...]:
        """Its crash points, in the order in which a process passes them."""
        return tuple(f"{self.name}:{when}" for when in ("before", *(["middle"] if self.streams else []), "after"))


@dataclass(frozen=True, slots=True)
class Calls:
    """The functions whose calls are edges.

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
    """Return the modules that may have edges."""
    paths = (HOME / name for name in SEARCHED)
    files = sorted(file for path in paths for file in ([path] if path.suffix else path.rglob("*.py")))
    return {module_of(file): file for file in files}


def module_of(file: Path) -> str:
    """Return the name of the module in a file."""
    return file.relative_to(HOME).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def _path_of(module: str) -> Path:
    return HOME / (module.replace(".", "/") + ".py")


@functools.cache
def calls() -> Calls:
    """Return the functions whose calls are edges, found in the product's own modules."""
    statements: set[str] = set()
    for module in STATEMENTS:
        statements |= committing(module, ast.parse(_path_of(module).read_text()), statements)
    store = {
        method.name: "body" in _parameters(method)
        for method in _methods(_path_of(STORE), "StoreDriver")
        if "guard" in _parameters(method)  # only requests have a guard
    }
    broker = {method.name for method in _methods(_path_of(BROKER), "Broker") if not method.name.startswith("_")}
    return Calls(frozenset(statements), store, frozenset(broker - BROKER_READS))


def committing(module: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Return the public functions of a module that take `tx` first and write, themselves or through ``known``."""
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
    docstring = ast.get_docstring(function, clean=False)
    statements = [_SQL.get(text, text) for text in texts if isinstance(text, str) and text != docstring]
    return any(_WRITES.search(_COMMENT.sub("", text)) for text in statements)


def _methods(path: Path, name: str) -> list[ast.FunctionDef]:
    [found] = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return [node for node in found.body if isinstance(node, ast.FunctionDef)]


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the full names of the names that a module imports."""
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
    """Return the last name of the object that a method is called on."""
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
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        word = _last_word(node.func)
        if dotted in self._wanted.statements:
            self._called.add(node.func)
            self._note(node, word)
        elif word in self._wanted.store and any(_last_word(argument) == "guard" for argument in arguments):
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
            raise AmbiguousCall(
                f"{self._module}:{node.lineno}: {dotted} is passed on and called elsewhere: call it here, in a lambda"
            )

    def _note(self, node: ast.Call, operation: str, *, streams: bool = False, commits: bool = False) -> None:
        name = ".".join([self._module.removeprefix("worker."), *self._scope]) + f":{operation}"
        self._times[name] += 1
        if (times := self._times[name]) > 1:
            name += f".{times}"
        self.found[node] = Edge(name, streams=streams, commits=commits)


def find(module: str, tree: ast.Module, wanted: Calls | None = None) -> dict[ast.AST, Edge]:
    """Return the edges of a module, by their calls.

    Raises:
        AmbiguousCall: a statement is not called but passed on.
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


#: The names by which a rewritten module calls the crash injector.
CROSSING, SENDING, ENDING = "__crossing__", "__sending__", "__ending__"


def rewrite(module: str, tree: ast.Module, wanted: Calls | None = None) -> ast.Module:
    """Rewrite the edges of a module: `CROSSING` or `SENDING` makes the call, `ENDING` runs the transaction."""
    found = find(module, tree, wanted)
    rewritten: ast.Module = _Rewrite(found).visit(tree)
    return ast.fix_missing_locations(rewritten)
