"""Makes a program of tests as tables hold them, and refuses tests that no answer could fail.

HumanEval's column defines `check(candidate)`, pytest's files define `test_...()`, and MBPP's column is a list of assert
statements: run as they stand, none of them calls the answer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from firsthand.scorers.case_classes import check_cases
from firsthand.scorers.caught_asserts import FUNCTION, name_of
from firsthand.scorers.code import parsed
from firsthand.scorers.vacuous_tests import check_vacuous, generates, is_report

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_INERT_CALLS = ("print", "repr", "str", "len", "type")
_JUDGES = re.compile(r"assert|check|verify|expect|test|fail|raise|exit|abort|^exec$|^eval$", re.IGNORECASE)
"""Names of functions that may raise for a wrong value."""
_KEEPS = ("append", "add", "extend", "insert", "update", "write")
"""Methods that keep a value, and do not judge it."""
_BY_NAME = {"globals", "locals", "vars", "dir", "exec", "eval", "getattr", "modules", "getmembers", "__dict__"}
"""Names by which a program may call functions that it does not name."""


def runnable_tests(tests: object, entry_point: str = "") -> str:
    """Return the tests as a program that calls the answer, which it does as given if it calls or asserts anything.

    Args:
        tests: A program, or a list of assert statements (a list, or its text).
        entry_point: Name of the answer's function, which `check(candidate)` is called with.

    ValueError, with the line, for a program that does not parse, needs pytest or unittest, or that no answer could fail.
    """
    program = _joined(tests)
    body = _parsed(program).body
    _check_statements(body)
    reached = _reached(body, list(body))
    called = [] if reached.by_name else _uncalled(body, reached.names, entry_point)
    if called:
        reached = _reached(body, [*body, *(part for each, _ in called for part in each.body)])
        program = "\n".join([program, *(line for _, line in called), ""])
    if not reached.judges:
        raise ValueError(
            "no answer could fail these tests: what they run asserts nothing of the answer. Write assert statements, "
            "functions test_...() without arguments, or check(candidate) beside a column entry_point"
        )
    if not reached.by_name:
        _check_unrun(body, reached.names | {each.name for each, _ in called})
    return program


def _uncalled(body: list[ast.stmt], named: Collection[str], entry_point: str) -> list[tuple[_Function, str]]:
    """Return the test functions that nothing names, each with its call; ValueError where it is unclear which of them run."""
    tests = [each for each in body if isinstance(each, FUNCTION) and each.name.startswith(("test", "check"))]
    found = list(_calls_of(tests, entry_point))
    read = {name_of(node) for each in body for node in ast.walk(each)}
    defined = {node.name for node in body if isinstance(node, FUNCTION)}
    left = [
        (each, call)
        for each, call in found
        if each.name not in named
        and not _decorated_by(each, _own(body))
        and not (generates(each) and each.name in read)
        and not (isinstance(each, ast.AsyncFunctionDef) and defined & {*map(name_of, each.decorator_list)})
    ]
    seen: set[str] = set()
    for each, _ in left:
        if generates(each):
            raise ValueError(
                f"line {each.lineno}: {each.name} is a generator, which a call does not run: leave out yield"
            )
        if each.name in seen:
            raise ValueError(
                f"line {each.lineno} defines {each.name} again, so the first of them never runs: rename one"
            )
        if any(other.name in named and other.name.startswith("test") for other, _ in found):
            raise ValueError(
                f"line {each.lineno}: {each.name} is not called as other tests are: call it, or leave it out"
            )
        seen.add(each.name)
    return left


def _check_unrun(body: list[ast.stmt], named: Collection[str]) -> None:
    """Raise ValueError, with its line, for a test that asserts something and that nothing calls."""
    nodes = [node for each in body for node in ast.walk(each)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    methods = {part for each in classes for part in each.body if isinstance(part, FUNCTION)}
    own, cases = _own(body), set[str]()
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            tests = [part for part in node.body if isinstance(part, FUNCTION) and part.name.startswith("test")]
            if any(map(_asserts, tests)) or not cases.isdisjoint(map(name_of, node.bases)):
                cases.add(node.name)
        elif not isinstance(node, FUNCTION) or node in methods or not _is_test(node) or not _asserts(node):
            continue
        if getattr(node, "name", "") in named or _decorated_by(node, own):
            continue
        if not isinstance(node, ast.ClassDef):
            raise ValueError(
                f"line {node.lineno}: nothing calls {node.name}. Called are functions test_...() of the module without "
                "arguments, and check(candidate) beside a column entry_point: call it, or leave it out"
            )
        if node.name in cases:
            raise ValueError(
                f"line {node.lineno}: nothing runs the tests of the class {node.name}: write functions test_...(), or call "
                "its methods"
            )


def _is_test(node: _Function) -> bool:
    """True for the name of a test: test..., check, and check... where it needs nothing."""
    needs = len(node.args.posonlyargs) + len(node.args.args) > len(node.args.defaults)
    return node.name.startswith("test") or node.name == "check" or (node.name.startswith("check") and not needs)


def _asserts(node: ast.AST) -> bool:
    return any(_judges(part) for part in ast.walk(node))


def _own(body: list[ast.stmt]) -> frozenset[str]:
    """The names of the functions and classes that a program defines, but for those that only wrap what they decorate."""
    nodes = [node for each in body for node in ast.walk(each) if isinstance(node, (*FUNCTION, ast.ClassDef))]
    wrap = {node.name for node in nodes if isinstance(node, FUNCTION) and _only_wraps(node)}
    marks = [part for node in nodes for part in node.decorator_list]
    given = {name_of(part.func) for part in marks if isinstance(part, ast.Call)}
    return frozenset(node.name for node in nodes) - (wrap - given)


def _only_wraps(function: _Function) -> bool:
    """True for a decorator that calls nothing and keeps nothing: it returns a function of its own, or one that does so."""
    inner = [each for each in function.body if isinstance(each, ast.FunctionDef)]
    rest = [each for each in function.body if not isinstance(each, ast.FunctionDef)]
    doc = [each for each in rest if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    if len(inner) != 1 or len(doc) != 1 or not isinstance(doc[0], ast.Return) or doc[0].value is None:
        return False
    calls = [
        *map(name_of, inner[0].decorator_list),
        *(name_of(p.func) for p in inner[0].decorator_list if isinstance(p, ast.Call)),
    ]
    within = [part for each in inner[0].body for part in ast.walk(each)]
    registers = any(isinstance(part, ast.Attribute) and part.attr in (*_KEEPS, "setdefault") for part in within)
    return name_of(doc[0].value) == inner[0].name and set(calls) <= {"wraps", ""} and not registers


def _decorated_by(node: ast.AST, own: Collection[str]) -> bool:
    """True for a function or class that one of these functions decorates, which may call it."""
    return any(name_of(part) in own for each in getattr(node, "decorator_list", ()) for part in ast.walk(each))


def unit_cases(tests: object) -> str:
    """Return unittest cases in a class `TestCases`; ValueError if there is none, or a test does not run or cannot fail."""
    if not isinstance(tests, str):
        raise ValueError(f"code was expected, not {tests!r:.60}")
    body = _parsed(tests).body
    check_cases(body)
    if not any(map(_asserts, body)):
        raise ValueError("no answer could fail these tests: they assert nothing. Write self.assertEqual(...) or assert")
    return tests


def imported(program: str) -> set[str]:
    """Return the top-level names of the modules that a program imports, but for those that it does without (`try`)."""
    return {name for each in _imports(_parsed(program).body) for name in _modules(each)} - {""}


def _imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a program, but for those in `try`."""
    pending: list[ast.AST] = list(reversed(body))
    while pending:
        each = pending.pop()
        if isinstance(each, ast.Import | ast.ImportFrom):
            yield each
        elif not isinstance(each, ast.Try):
            pending += reversed([*ast.iter_child_nodes(each)])


def _joined(tests: object) -> str:
    """The tests as a program; those of MBPP are a list, which a CSV holds as text."""
    listed = tests
    if isinstance(tests, str) and tests.lstrip().startswith("["):
        try:
            listed = ast.literal_eval(tests.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = tests
    if isinstance(listed, list) and listed and all(isinstance(each, str) for each in listed):
        return "\n".join(listed)
    if not isinstance(tests, str):
        raise ValueError(f"code was expected, not {tests!r:.60}")
    return tests


def _parsed(program: str) -> ast.Module:
    try:
        return parsed(program)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is no Python: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"this is no Python: {error}"[:200]) from None


def _check_statements(body: list[ast.stmt]) -> None:
    loaded = {node.id for each in body for node in ast.walk(each) if isinstance(node, ast.Name)}
    for each in body:
        cases = isinstance(each, ast.ClassDef) and any(name_of(base) == "TestCase" for base in each.bases)
        if isinstance(each, ast.ClassDef) and cases and each.name not in loaded:
            raise ValueError(f"line {each.lineno} has cases of unittest: take the scorer passes_unit_tests")
    for node in _imports(body):
        if "pytest" in _modules(node):
            raise ValueError(f"line {node.lineno} imports pytest, which is not in the sandbox: write assert statements")
    check_vacuous(body)


class _Reached(NamedTuple):
    """Parts of a program that run, as far as its text tells."""

    names: set[str]
    """All names and attributes that are read in it."""
    judges: bool
    """True if any of it may raise for a wrong value."""

    @property
    def by_name(self) -> bool:
        """Return True if it may call functions that it does not name."""
        return not self.names.isdisjoint(_BY_NAME)


def _reached(body: list[ast.stmt], running: list[ast.stmt]) -> _Reached:
    """Return the parts that statements run: their own, and those of the program's functions and classes that they name."""
    defined: dict[str, list[ast.AST]] = {}
    for node in (node for each in body for node in ast.walk(each)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.setdefault(node.name, []).extend(_inner(node))
    own, judges = frozenset(defined), False
    names: set[str] = set()
    plain = _plain_look_ups(body, own)
    pending: list[ast.AST] = list(running)
    while pending:
        node = pending.pop()
        judges = judges or _judges(node)
        name = "" if node in plain else name_of(node)
        if name and name not in names and isinstance(getattr(node, "ctx", None), ast.Load):
            names.add(name)
            pending += [part for each in ([*defined] if name in _BY_NAME else [name]) for part in defined.pop(each, [])]
        pending += _outer(node, own)
    return _Reached(names, judges)


def _plain_look_ups(body: list[ast.stmt], own: Collection[str]) -> set[ast.AST]:
    """The functions of calls such as `getattr(x, "name")` and `vars(x)`, which read none of the program's own functions."""
    found: set[ast.AST] = set()
    for node in (node for each in body for node in ast.walk(each)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        at = {"getattr": 1, "exec": 0, "eval": 0}.get(node.func.id)
        text = node.args[at] if at is not None and len(node.args) > at else None
        given = text.value if isinstance(text, ast.Constant) else None
        named = isinstance(given, str) and not any(name in given for name in (*own, *_BY_NAME))
        if named or node.func.id in ("vars", "dir"):
            found.add(node.func)
    return found


def _inner(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.AST]:
    """Return the nodes that run when a function is called, or any method of a class."""
    if not isinstance(node, ast.ClassDef):
        return list(node.body)
    return [part for each in node.body for part in (each.body if isinstance(each, FUNCTION) else [])]


def _outer(node: ast.AST, own: Collection[str]) -> list[ast.AST]:
    """Return the nodes that run with a node; of a function its decorators and defaults, unless one of `own` decorates it."""
    if not isinstance(node, FUNCTION):
        return list(ast.iter_child_nodes(node))
    if _decorated_by(node, own):
        return list(ast.iter_child_nodes(node))
    return [*node.decorator_list, *node.args.defaults, *(each for each in node.args.kw_defaults if each)]


def _judges(node: ast.AST) -> bool:
    """Return True for an assertion, a raise, a division by zero, and a call that may hold one.

    A call may by its name, and where it is made of the value of another call and its own is dropped, as `close(f(1), 2)`.
    """
    if isinstance(node, ast.Assert):
        return not (isinstance(node.test, ast.Constant) and node.test.value)
    if isinstance(node, ast.BinOp):
        return isinstance(node.right, ast.Constant) and node.right.value == 0 and isinstance(node.op, _DIVISIONS)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        given = [*node.value.args, *(each.value for each in node.value.keywords)]
        drops = name_of(node.value.func) not in (*_INERT_CALLS, *_KEEPS)
        return drops and any(isinstance(part, ast.Call) for each in given for part in ast.walk(each))
    return isinstance(node, ast.Raise) or (
        isinstance(node, ast.Call) and _JUDGES.search(name_of(node.func)) is not None and not is_report(node)
    )


def _calls_of(functions: list[_Function], entry_point: str) -> Iterator[tuple[_Function, str]]:
    """The test functions that can be called, each with its call."""
    for each in functions:
        given = each.args
        positional = [*given.posonlyargs, *given.args]
        required = len(positional) - len(given.defaults)
        lone = not any(default is None for default in given.kw_defaults)
        call = ""
        if each.name.startswith("test") and required == 0 and lone:
            call = f"{each.name}()"
        elif each.name == "check" and required == 1 and lone and entry_point:
            call = f"{each.name}({entry_point})"
        if call:
            waits = isinstance(each, ast.AsyncFunctionDef)
            yield each, f"__import__('asyncio').run({call})" if waits else call


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.partition(".")[0] for name in names}
