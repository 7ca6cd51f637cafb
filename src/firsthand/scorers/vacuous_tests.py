"""Finds statements of tests that hold whatever the answer does: asserts of a list, comparisons that nobody reads.

It reads the text alone. A statement is named only where no value of the answer's could make it fail.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from firsthand.scorers.caught_asserts import FUNCTION, check_caught, name_of

_LAZY = {"map", "filter", "zip", "enumerate", "reversed", "iter"}
"""Builtins whose result is true, also where it holds nothing."""
_REPORTS = {"testmod", "testfile", "run_docstring_examples"}
"""Functions of doctest that print what fails and raise nothing."""
_TRUTHS = (ast.Compare, ast.BoolOp)


def check_vacuous(body: list[ast.stmt], runs: bool = True) -> None:
    """Raise ValueError, with its line, for the first statement of a program that cannot fail though it is meant to.

    Args:
        runs: False where cases of unittest are run by others, so that it does not count what the program says of them.
    """
    nodes = [node for each in body for node in ast.walk(each)]
    defined = {node.name for node in nodes if isinstance(node, FUNCTION)}
    idle = {node.name for node in nodes if isinstance(node, FUNCTION) and _runs_later(node)}
    idle -= {node.name for node in nodes if isinstance(node, FUNCTION) and not _runs_later(node)}
    prompts = any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and ">>>" in node.value for node in nodes
    )
    for each in _plain_statements(body):
        if isinstance(each.value, ast.Compare):
            raise ValueError(f"line {each.lineno} compares two values and drops the result: write assert before it")
    for node in nodes:
        if isinstance(node, ast.Assert):
            _check_assert(node, defined)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            _check_dropped(node.value, idle, prompts, runs)
    check_caught(body)


def _runs_later(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True for a coroutine or a generator, whose call alone runs none of its body."""
    return isinstance(function, ast.AsyncFunctionDef) or generates(function)


def generates(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True for a function that yields."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, (*FUNCTION, ast.ClassDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)
    return False


def always_true(test: ast.expr, defined: Collection[str] = ()) -> bool:
    """Return True for an expression that is true for every value of what it reads; `defined` are the program's functions."""
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(each, ast.Starred) for each in test.elts)
    if isinstance(test, ast.Dict):
        return any(each is not None for each in test.keys)
    if isinstance(test, ast.ListComp | ast.SetComp):
        return _holds_truths(test)
    if isinstance(test, ast.BoolOp):
        parts = [always_true(each, defined) for each in test.values]
        return any(parts) if isinstance(test.op, ast.Or) else all(parts)
    if isinstance(test, ast.NamedExpr):
        return always_true(test.value, defined)
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name):
        return test.func.id in _LAZY and test.func.id not in defined
    return isinstance(test, ast.Lambda | ast.GeneratorExp)


def _holds_truths(test: ast.ListComp | ast.SetComp) -> bool:
    """True for a list of comparisons, or one of something for each of what the tests list: its length says nothing."""
    if any(each.ifs for each in test.generators):
        return False
    negated = isinstance(test.elt, ast.UnaryOp) and isinstance(test.elt.op, ast.Not)
    listed = all(isinstance(each.iter, ast.List | ast.Tuple) and always_true(each.iter) for each in test.generators)
    return negated or listed or isinstance(test.elt, _TRUTHS)


def _check_assert(node: ast.Assert, defined: set[str]) -> None:
    if isinstance(node.test, ast.Tuple) and node.test.elts:
        raise ValueError(
            f"line {node.lineno} asserts a tuple, which always holds: write assert x == y, 'message' without parentheses"
        )
    if not isinstance(node.test, ast.Constant) and always_true(node.test, defined):
        raise ValueError(
            f"line {node.lineno} asserts {_kind(node.test)}, which always holds: write assert all(...) of the comparisons, "
            "or assert x == y"
        )
    if isinstance(node.msg, ast.Compare):
        raise ValueError(
            f"line {node.lineno} has a comparison as its message, which nobody reads: write it as an assert"
        )


def _kind(test: ast.expr) -> str:
    kinds = {
        ast.List: "a list", ast.Set: "a set", ast.Dict: "a dict", ast.ListComp: "a list of what is compared",
        ast.SetComp: "a set of what is compared", ast.GeneratorExp: "a generator", ast.Lambda: "a function",
        ast.Call: "an iterator", ast.BoolOp: "a choice with something true in it",
    }  # fmt: skip
    return kinds.get(type(test), "something true")


def _check_dropped(call: ast.Call, idle: set[str], prompts: bool, runs: bool) -> None:
    """Refuse a call that does not run, or whose result says what failed, where that result is dropped."""
    name, given = name_of(call.func), {each.arg: each.value for each in call.keywords}
    if isinstance(call.func, ast.Name) and name in idle:
        raise ValueError(
            f"line {call.lineno} calls {name}, which runs nothing of it: it is a coroutine or a generator. Write "
            f"asyncio.run({name}()) or a function without yield"
        )
    runner = isinstance(call.func, ast.Attribute) and name == "run" and "TextTestRunner" in ast.unparse(call.func.value)
    stays = given.get("exit")
    main = name == "main" and isinstance(stays, ast.Constant) and not stays.value
    if runs and (runner or main):
        raise ValueError(f"line {call.lineno} runs cases and drops what came out: take the scorer passes_unit_tests")
    if name in _REPORTS and prompts and "raise_on_error" not in given:
        raise ValueError(f"line {call.lineno} runs doctests and drops what came out: assert that its failed is 0")


def is_report(node: ast.Call) -> bool:
    """Return True for a call that prints what fails and raises nothing."""
    return name_of(node.func) in _REPORTS | {"TextTestRunner"}


def _plain_statements(body: list[ast.stmt]) -> Iterator[ast.Expr]:
    """The expressions that are statements of the program and its tests, but for those in try and with.

    Those may be there for what they raise, as those in a function that a test hands over.
    """
    for each in body:
        if isinstance(each, ast.Expr):
            yield each
        elif isinstance(each, FUNCTION) and not each.name.startswith(("test", "check")):
            continue
        elif not isinstance(each, ast.Try | ast.With | ast.AsyncWith):
            yield from _plain_statements([part for part in ast.iter_child_nodes(each) if isinstance(part, ast.stmt)])
