"""Checks a file of unittest cases, of which the class `TestCases` is run: no test of it may be left out, or be no test."""

from __future__ import annotations

import ast

from firsthand.scorers.caught_asserts import FUNCTION, name_of
from firsthand.scorers.vacuous_tests import always_true, check_vacuous, generates

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_TRUTHS = ("assertTrue", "assertFalse")
_KEPT = {"skip", "skipIf", "skipUnless", "expectedFailure", "patch", "object", "dict", "multiple"}
"""Decorators of unittest, which leave a coroutine or a generator what it is."""
_NO_MESSAGES = (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Compare)


def check_cases(body: list[ast.stmt]) -> None:
    """Raise ValueError, with a line where there is one, for cases that unittest or we would not run, or that cannot fail."""
    classes = {each.name: each for each in body if isinstance(each, ast.ClassDef)}
    if "TestCases" not in classes:
        found = f", and there is {', '.join(list(classes)[:3])}" if classes else ""
        raise ValueError(f"a class TestCases of unittest was expected{found}")
    lineage = _lineage(classes, "TestCases")
    tests = [part for each in lineage for part in _tests_of(each)]
    _check_left_out(body, classes, lineage)
    if not tests and not _made(body, lineage):
        raise ValueError("no answer could fail these tests: TestCases has no method test_...")
    bases = {name_of(base) for each in lineage for base in each.bases}
    read = {name_of(node) for each in body for node in ast.walk(each)}
    for each in tests:
        if each.name in read or any(name_of(part) not in _KEPT for part in map(_mark, each.decorator_list)):
            continue
        _check_method(each, waits=bases <= {*classes, "TestCase", "object"})
    if tests and (any(map(_is_skipped, lineage)) or all(map(_is_skipped, tests))) and not _made(body, lineage):
        raise ValueError("no answer could fail these tests: all of them are skipped")
    check_vacuous(body, runs=False)
    _check_truths(body)


def _lineage(classes: dict[str, ast.ClassDef], name: str) -> list[ast.ClassDef]:
    """The class of this name and those of the file that it inherits from."""
    found, pending = dict[str, ast.ClassDef](), [name]
    while pending:
        if (each := pending.pop()) in classes and each not in found:
            found[each] = classes[each]
            pending += map(name_of, classes[each].bases)
    return list(found.values())


def _made(body: list[ast.stmt], lineage: list[ast.ClassDef]) -> bool:
    """True if the class may have tests that its text does not name: assigned, decorated in, or of a base from elsewhere."""
    loose = any(_may_define(part) for each in lineage for part in each.body)
    names = {name_of(node) for each in body for node in ast.walk(each)}
    foreign = {name_of(base) for each in lineage for base in each.bases} - {
        "TestCase",
        "IsolatedAsyncioTestCase",
        "object",
    }
    unknown = foreign - {each.name for each in lineage}
    decorated = any(each.decorator_list and not _is_skipped(each) for each in lineage)
    return loose or "setattr" in names or bool(unknown) or decorated


def _may_define(node: ast.stmt) -> bool:
    """True for a statement of a class by which it may have a test that is no function of it."""
    if isinstance(node, ast.Assign):
        return any(name_of(target).startswith("test") for target in node.targets)
    return isinstance(node, ast.If | ast.For | ast.While | ast.Try | ast.With)


def _check_left_out(body: list[ast.stmt], classes: dict[str, ast.ClassDef], lineage: list[ast.ClassDef]) -> None:
    """Refuse tests outside of the classes that are run, unless those use them, and a `load_tests`."""
    named = {node.id for each in body for node in ast.walk(each) if isinstance(node, ast.Name)}
    used = {node.id for each in lineage for part in each.body for node in ast.walk(part) if isinstance(node, ast.Name)}
    run = {each.name for each in lineage}
    for each in body:
        if isinstance(each, FUNCTION) and each.name == "load_tests":
            raise ValueError(f"line {each.lineno}: load_tests is not called: write all tests into the class TestCases")
        if isinstance(each, FUNCTION) and each.name.startswith("test") and each.name not in named:
            raise ValueError(
                f"line {each.lineno}: only TestCases is run, and {each.name} is outside of it: move it there"
            )
        if isinstance(each, ast.ClassDef) and each.name not in run | used and not _is_skipped(each):
            others = _lineage(classes, each.name)
            cases = any(name_of(base).endswith("TestCase") for other in others for base in other.bases)
            if (cases and any(map(_tests_of, others))) or (_tests_of(each) and each.name not in named):
                raise ValueError(
                    f"line {each.lineno}: only TestCases is run, and {each.name} has tests: move them there"
                )


def _tests_of(case: ast.ClassDef) -> list[_Function]:
    return [part for part in case.body if isinstance(part, FUNCTION) and part.name.startswith("test")]


def _check_method(test: _Function, waits: bool) -> None:
    """Refuse a test whose call runs nothing of it, or that returns what it compares.

    Args:
        waits: True if all bases are known, and none awaits a coroutine unless it is an IsolatedAsyncioTestCase.
    """
    if isinstance(test, ast.AsyncFunctionDef) and waits:
        raise ValueError(
            f"line {test.lineno}: nothing awaits {test.name}: make TestCases a unittest.IsolatedAsyncioTestCase"
        )
    if generates(test):
        raise ValueError(f"line {test.lineno}: {test.name} is a generator, which a call does not run: leave out yield")
    for each in test.body:
        if isinstance(each, ast.Return) and isinstance(each.value, ast.Compare):
            raise ValueError(f"line {each.lineno} returns what it compares, which nobody reads: write assert before it")


def _is_skipped(node: _Function | ast.ClassDef) -> bool:
    """True for a test, or a class, that is skipped whatever happens."""
    return any(name_of(each) == "skip" for each in map(_mark, node.decorator_list))


def _mark(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _check_truths(body: list[ast.stmt]) -> None:
    """Refuse cases whose every assertion is an assertTrue or assertFalse of two values, or of what is always true.

    One among others that ask something stays: public tests have them.
    """
    nodes = [node for each in body for node in ast.walk(each)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and name_of(node.func).startswith(("assert", "fail"))]
    plain = any(isinstance(node, ast.Assert | ast.Raise) for node in nodes)
    if calls and not plain and all(map(_is_vacuous, calls)):
        raise ValueError(
            f"line {calls[0].lineno}: no answer could fail these tests: assertTrue is given what is always true, or two "
            "values, of which the second is its message. Write assertEqual"
        )


def _is_vacuous(call: ast.Call) -> bool:
    """True for an assertTrue or assertFalse that has a value in the message's place, or an assertTrue of a list."""
    given, message = call.args, call.args[1] if len(call.args) > 1 else None
    odd = isinstance(message, ast.Constant) and not isinstance(message.value, str) and message.value is not None
    fixed = name_of(call.func) == "assertTrue" and bool(given) and always_true(given[0])
    return name_of(call.func) in _TRUTHS and (odd or fixed or isinstance(message, _NO_MESSAGES))
