"""Makes a program of tests as tables hold them, and refuses tests that no answer could fail.

HumanEval's column defines `check(candidate)`, pytest's files define `test_...()`, and MBPP's column is a list of assert
statements: run as they stand, none of them calls the answer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from firsthand.scorers.code import parsed

_INERT_CALLS = ("print", "repr", "str", "len", "type")
_JUDGES = re.compile(r"assert|check|verify|expect|test|fail|raise|exit|abort", re.IGNORECASE)
"""Names of functions that may raise for a wrong value."""


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
    judging = any(_judges(node) for each in body for node in ast.walk(each))
    if judging and any(map(_acts, body)):
        return program
    calls = [*_calls_of(body, entry_point)] if judging else []
    if not calls:
        raise ValueError(
            "no answer could fail these tests: they assert nothing and call nothing. Write assert statements, "
            "functions test_...() without arguments, or check(candidate) beside a column entry_point"
        )
    return "\n".join([program, *calls, ""])


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
    found: set[str] = set()
    pending: list[ast.AST] = [_parsed(program)]
    while pending:
        each = pending.pop()
        if isinstance(each, ast.Import | ast.ImportFrom):
            found |= _modules(each)
        elif not isinstance(each, ast.Try):
            pending += ast.iter_child_nodes(each)
    return found - {""}


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
    for each in body:
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Compare):
            raise ValueError(f"line {each.lineno} compares two values and drops the result: write assert before it")
        if isinstance(each, ast.ClassDef) and any(_name_of(base) == "TestCase" for base in each.bases):
            raise ValueError(f"line {each.lineno} has cases of unittest: take the scorer passes_unit_tests")
    for node in (node for each in body for node in ast.walk(each)):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
            raise ValueError(
                f"line {node.lineno} asserts a tuple, which always holds: write assert x == y, 'message' without parentheses"
            )
        if isinstance(node, ast.Import | ast.ImportFrom) and "pytest" in _modules(node):
            raise ValueError(f"line {node.lineno} imports pytest, which is not in the sandbox: write assert statements")


def _acts(statement: ast.stmt) -> bool:
    """Return True if a statement asserts, raises or calls something when it is run, other than to show it."""
    return any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _INERT_CALLS))
        for node in _run(statement)
    )


def _judges(node: ast.AST) -> bool:
    """Return True for an assertion, a raise, and a call of a function that may hold one by its name."""
    return isinstance(node, ast.Assert | ast.Raise) or (
        isinstance(node, ast.Call) and _JUDGES.search(_name_of(node.func)) is not None
    )


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run with the statement: those within functions do not."""
    pending = [node]
    while pending:
        each = pending.pop()
        yield each
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(each)


def _calls_of(body: list[ast.stmt], entry_point: str) -> Iterator[str]:
    """The calls of test functions that are only defined."""
    for each in body:
        if not isinstance(each, ast.FunctionDef):
            continue
        given = each.args
        positional = [*given.posonlyargs, *given.args]
        required = len(positional) - len(given.defaults)
        lone = not any(default is None for default in given.kw_defaults)
        if each.name.startswith("test") and required == 0 and lone:
            yield f"{each.name}()"
        elif each.name == "check" and required == 1 and lone and entry_point:
            yield f"{each.name}({entry_point})"


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.partition(".")[0] for name in names}
