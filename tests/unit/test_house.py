"""Rules of this repository that no linter knows. Each failure says what to do."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from celery import Celery

from worker.errors import Permanent
from worker.jobs.retry import GiveUp, History, decide
from worker.jobs.statements import sql
from worker.jobs.task_names import TASK_OF, TaskName
from worker.stores.cos_json.errors import CODES
from worker.tasks import celery_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(__file__).parents[2]
CODE = [*sorted(HOME.glob("api/**/*.py")), *sorted(HOME.glob("worker/**/*.py"))]
EMULATOR = [path for path in CODE if HOME / "worker/emulator" in path.parents]
TESTS = sorted(HOME.glob("tests/**/*.py"))
SQL = sorted(HOME.glob("worker/jobs/sql/*.sql"))
DOCS = HOME / "docs"

LINES_MAX = 500
LINES_USUAL = 300
#: Modules past the usual length, and why each is still one subject.
LONG = {
    "worker/jobs/models.py": "the tables",
    "worker/jobs/transitions.py": "every write of a state but those of operators, one function each",
}
#: The only code that writes the states of jobs and slices; `sql/` holds its statements.
STATES_ARE_WRITTEN_IN = {"worker/jobs/transitions.py", "worker/jobs/control.py"}
_WRITES_A_STATE = re.compile(r"\b(UPDATE|INSERT\s+INTO|DELETE\s+FROM)\s+(job|slice)\b", re.IGNORECASE)
_CODE_WORD = re.compile(r"[a-z]+(_[a-z]+)*")


def name(path: Path) -> str:
    return path.relative_to(HOME).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name(path))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in a file, with the last part of the called name."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            called = node.func
            yield called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""), node


def first_text(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def test_house_is_found() -> None:
    assert len(CODE) > 50
    assert len(TESTS) > 10
    assert len(SQL) > 20


def test_no_file_has_two_subjects() -> None:
    over = {}
    for path in [*CODE, *TESTS, *SQL]:
        usual = path in CODE and name(path) not in LONG
        most = LINES_USUAL if usual else 2 * LINES_MAX if path in TESTS else LINES_MAX  # tests have tables of cases
        if (lines := len(path.read_text().splitlines())) > most:
            over[name(path)] = lines
    assert over == {}, "divide these, or name them in LONG with the reason"


def test_long_modules_are_really_long() -> None:
    lines = {each: len((HOME / each).read_text().splitlines()) for each in LONG}
    assert {each: count for each, count in lines.items() if count <= LINES_USUAL} == {}, "take these out of LONG"


def test_states_are_written_in_one_place() -> None:
    writing = {each.stem for each in SQL if _WRITES_A_STATE.search(_without_comments(each.read_text()))} - NO_STATE
    found = {}
    for path in CODE:
        texts = [node.value for node in ast.walk(parse(path)) if isinstance(node, ast.Constant)]
        own = [text for text in texts if isinstance(text, str) and _WRITES_A_STATE.search(text)]
        run = {text for called, call in calls(path) if called == "sql" and (text := first_text(call)) in writing}
        if own or run:
            found[name(path)] = [*own, *run]
    assert set(found) <= STATES_ARE_WRITTEN_IN, found


#: Statements that write a job's or slice's row but no state of it: the columns named are theirs.
NO_STATE = {
    "close_breaker",  # nulls not_before of jobs that waited for the store
    "probe_at_once",  # ends the wait of what waited for a profile
    "release_hold",  # adds the time of the hold to failing_since
}


def test_statements_without_a_state_have_none() -> None:
    for each in NO_STATE:
        text = _without_comments(sql(each))
        assert re.search(r"\b(state|step|epoch|token|slices_left)\s*=[^=]", _set_clauses(text)) is None


def _without_comments(statement: str) -> str:
    return re.sub(r"--.*", "", statement)


def _set_clauses(statement: str) -> str:
    return " ".join(re.findall(r"\bSET\b(.*?)\b(?:WHERE|FROM|RETURNING)\b", statement, re.DOTALL | re.IGNORECASE))


def test_every_statement_is_used() -> None:
    texts = {
        node.value
        for path in CODE
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {each.stem for each in SQL} - texts == set()


def test_package_worker_imports_nothing() -> None:
    """`import worker.config.settings` in the API must not pull in Celery."""
    tree = parse(HOME / "worker/__init__.py")
    assert [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)] == []


def test_emulator_and_product_share_no_class_name() -> None:
    classes: dict[bool, set[str]] = {True: set(), False: set()}
    for path in CODE:
        classes[path in EMULATOR] |= {node.name for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)}
    assert len(classes[True]) > 20
    assert classes[True] & classes[False] == set(), "rename the emulator's"


def test_no_package_below_tests() -> None:
    """With one, `tests/unit/worker` would shadow our `worker`."""
    assert sorted(HOME.glob("tests/**/__init__.py")) == []


def test_tests_wait_for_signals_and_pass_their_collaborators() -> None:
    """No sleep: poll with a deadline or wait on a signal. No patching by dotted path: pass the collaborator."""
    wrong = []
    for path in TESTS:
        imports = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
        wrong += [name(path) for node in imports for alias in node.names if "mock" in alias.name.split(".")]
        for called, call in calls(path):
            dotted = called == "setattr" and "." in (first_text(call) or "")
            if dotted or called in {"sleep", "patch"}:
                wrong.append(f"{name(path)}:{call.lineno} {called}")
    assert wrong == []


def test_dispatcher_names_the_tasks_that_workers_have() -> None:
    assert celery_tasks.slice_task.name == TaskName.SLICE  # importing it registers all
    app = Celery(set_as_current=False)
    app.finalize()
    assert {each for each in app.tasks if not each.startswith("celery.")} == set(TASK_OF.values()) == set(TaskName)


def error_codes() -> dict[str, set[str]]:
    """Return every stable code in the sources, with each advice that stands beside it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in CODE:
        if path in EMULATOR:
            continue
        for node in ast.walk(parse(path)):
            advice = _beside(node, "advice")
            for code in _texts(_beside(node, "code")):
                if _CODE_WORD.fullmatch(code):
                    found[code] |= set(_texts(advice))
    return dict(found)


def _beside(node: ast.AST, field: str) -> ast.expr | None:
    """Return the value that a call, a class, an assignment or a dict gives to a field."""
    if isinstance(node, ast.Call):
        return next((each.value for each in node.keywords if each.arg == field), None)
    if isinstance(node, ast.ClassDef):
        return next((_beside(each, field) for each in node.body if _beside(each, field)), None)
    if isinstance(node, ast.Assign):
        return node.value if [getattr(each, "id", None) for each in node.targets] == [field] else None
    if isinstance(node, ast.AnnAssign):
        return node.value if getattr(node.target, "id", None) == field else None
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return next((value for key, value in pairs if isinstance(key, ast.Constant) and key.value == field), None)
    return None


def _texts(value: ast.expr | None) -> list[str]:
    """Return the texts that an expression may have; an ellipsis stands for inserted values."""
    match value:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp():
            return _texts(value.body) + _texts(value.orelse)
        case ast.JoinedStr():
            return ["".join(_texts(part)[0] if isinstance(part, ast.Constant) else "…" for part in value.values)]
        case _:
            return []


def table(document: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    text = (DOCS / document).read_text()
    section = text.split(f"\n{heading}\n", 1)[1]
    rows = [line for line in re.split(r"\n#+ ", section, maxsplit=1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_error_code_is_documented_with_its_advice() -> None:
    documented = {code.strip("`"): advice for code, _, advice in table("operating.md", "## Error codes")}
    codes = error_codes()
    assert set(documented) - set(codes) == set(), "documented, but nowhere in the sources"
    assert set(codes) - set(documented) == set(), "write these into docs/operating.md"
    wrong = {
        code: (documented[code], sorted(advices))
        for code, advices in codes.items()
        if advices and documented[code] not in advices
    }
    assert wrong == {}, "documented advice, and what the sources give"


def test_no_advice_to_a_job_that_has_ended_says_that_it_goes_on_by_itself() -> None:
    now = timedelta(0)
    history = History(0, None, None, session_losses=0, retry_for=now, wait_for=now)
    codes = error_codes()
    of_jobs = [code.strip("`") for code, where, _ in table("operating.md", "## Error codes") if "job" in where.lower()]
    for advice in sorted(set().union(*(codes[code] for code in of_jobs))):
        ended = decide(Permanent("it failed", advice=advice), history)
        assert isinstance(ended, GiveUp)
        assert not re.search(r"by itself|by themselves|^Nothing: (it|the|what)", ended.error["advice"]), advice


def test_every_answer_of_a_cos_json_store_is_documented() -> None:
    rows = table("protocols/cos-json.md", "## What each code leads to")
    documented = {int(code): (kind, meaning) for code, kind, meaning in rows}
    assert documented == {code: (kind.value, meaning) for code, (kind, meaning) in CODES.items()}


def test_documents_name_files_that_there_are() -> None:
    gone = {}
    names = {path.name for path in [*CODE, *TESTS, *SQL]} | {"NAME.sql"}
    beside = ("README.md", "CONTRIBUTING.md", "tests/faults/README.md", "worker/jobs/sql/README.md")
    for document in [*(HOME / name for name in beside), *DOCS.rglob("*.md")]:
        text = document.read_text()
        paths = set(re.findall(r"\b(?:api|worker|tests|docs)/[\w/.-]+\.(?:py|sql|md)\b", text))
        links = {link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)#]+[^)]*)\)", text)}
        missing = {path for path in paths if not (HOME / path).exists()}
        missing |= {name for name in re.findall(r"`(?:[\w*]+/)*(\w+\.(?:py|sql))`", text) if name not in names}
        missing |= {link for link in links if not (document.parent / link).exists()}
        if missing:
            gone[name(document)] = sorted(missing)
    assert gone == {}


#: The internals of these packages may change with any release.
_FOREIGN_PARTS = {"celery": "Celery", "kombu": "kombu", "amqp": "amqp", "flower": "Flower"}
_WRITTEN_FOR = re.compile(r"\b(Celery|kombu|amqp|Flower) (\d+\.\d+)\b")


def test_what_relies_on_the_inside_of_celery_and_kombu_says_for_which_version() -> None:
    homes = [*HOME.glob("worker/runtime/*.py"), *HOME.glob("worker/broker/*.py"), HOME / "worker/flower.py"]
    silent, outdated = [], []
    for path in homes:
        tree = ast.parse(path.read_text())
        imported = {node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
        if not imported & _FOREIGN_PARTS.keys():
            continue
        said = dict(_WRITTEN_FOR.findall(ast.get_docstring(tree) or ""))
        if not said:
            silent.append(path.name)
        outdated += [
            (path.name, name, said[name])
            for package, name in _FOREIGN_PARTS.items()
            if name in said and not f"{version(package)}.".startswith(f"{said[name]}.")
        ]
    assert silent == [], "say in the docstring for which version each was written, and what of it is used"
    assert outdated == [], "read the new version's code, then name it in the docstring"
