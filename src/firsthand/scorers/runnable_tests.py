"""Makes a program of tests as tables hold them, and refuses tests that no answer could fail.

HumanEval's column defines `check(candidate)`, pytest's files define `test_...()`, and MBPP's column is a list of assert
statements: run as they stand, none of them calls the answer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from firsthand.scorers.code import parsed

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_INERT_CALLS = ("print", "repr", "str", "len", "type")
_JUDGES = re.compile(
    r"assert|check|verify|expect|test|fail|raise|exit|abort|^exec$|^eval$|^run_docstring", re.IGNORECASE
)
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
    tests_of_body = [each for each in body if isinstance(each, _FUNCTION) and each.name.startswith(("test", "check"))]
    called = (
        [] if any(each.name in reached.names for each in tests_of_body) else [*_calls_of(tests_of_body, entry_point)]
    )
    if called and not reached.by_name:
        reached = _reached(body, [*body, *(part for each, _ in called for part in each.body)])
        program = "\n".join([program, *(line for _, line in called), ""])
    if not reached.judges:
        raise ValueError(
            "no answer could fail these tests: what they run asserts nothing of the answer. Write assert statements, "
            "functions test_...() without arguments, or check(candidate) beside a column entry_point"
        )
    return program


def unit_cases(tests: object) -> str:
    """Return unittest cases in a class `TestCases`; ValueError if there is none, or no method that is a test."""
    if not isinstance(tests, str):
        raise ValueError(f"code was expected, not {tests!r:.60}")
    classes = {each.name: each for each in _parsed(tests).body if isinstance(each, ast.ClassDef)}
    if "TestCases" not in classes:
        found = f", and there is {', '.join(list(classes)[:3])}" if classes else ""
        raise ValueError(f"a class TestCases of unittest was expected{found}")
    methods = [part for each in classes.values() for part in each.body]
    if not any(
        isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test") for each in methods
    ):
        raise ValueError("no answer could fail these tests: TestCases has no method test_...")
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
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Compare):
            raise ValueError(f"line {each.lineno} compares two values and drops the result: write assert before it")
        cases = isinstance(each, ast.ClassDef) and any(_name_of(base) == "TestCase" for base in each.bases)
        if isinstance(each, ast.ClassDef) and cases and each.name not in loaded:
            raise ValueError(f"line {each.lineno} has cases of unittest: take the scorer passes_unit_tests")
    for node in (node for each in body for node in ast.walk(each)):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
            raise ValueError(
                f"line {node.lineno} asserts a tuple, which always holds: write assert x == y, 'message' without parentheses"
            )
    for node in _imports(body):
        if "pytest" in _modules(node):
            raise ValueError(f"line {node.lineno} imports pytest, which is not in the sandbox: write assert statements")


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
    pending: list[ast.AST] = list(running)
    while pending:
        node = pending.pop()
        judges = judges or _judges(node)
        name = _name_of(node)
        if name and name not in names and isinstance(getattr(node, "ctx", None), ast.Load):
            names.add(name)
            pending += [part for each in ([*defined] if name in _BY_NAME else [name]) for part in defined.pop(each, [])]
        pending += _outer(node, own)
    return _Reached(names, judges)


def _inner(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.AST]:
    """Return the nodes that run when a function is called, or any method of a class."""
    if not isinstance(node, ast.ClassDef):
        return list(node.body)
    return [part for each in node.body for part in (each.body if isinstance(each, _FUNCTION) else [])]


def _outer(node: ast.AST, own: Collection[str]) -> list[ast.AST]:
    """Return the nodes that run with a node; of a function its decorators and defaults, unless one of `own` decorates it."""
    if not isinstance(node, _FUNCTION):
        return list(ast.iter_child_nodes(node))
    if any(_name_of(part) in own for each in node.decorator_list for part in ast.walk(each)):
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
        drops = _name_of(node.value.func) not in (*_INERT_CALLS, *_KEEPS)
        return drops and any(isinstance(part, ast.Call) for each in given for part in ast.walk(each))
    return isinstance(node, ast.Raise) or (
        isinstance(node, ast.Call) and _JUDGES.search(_name_of(node.func)) is not None
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


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.partition(".")[0] for name in names}
