"""Checks predicted inputs and outputs of a function by running it in the sandbox, as CRUXEval does (Gu et al., 2024).

A task's `secret` holds `code` (which defines `f`), `output` (the source of a value) and `predict`: `input` or `output`. The
model's expression is evaluated in its own process, and only its value reaches the function. `cruxeval_assertion` reads an
answer as the authors' code does; `assertion_holds` takes an output only if it is written out, and one answer.
"""

from __future__ import annotations

import ast

from firsthand.benchmark import needing
from firsthand.errors import DataError
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.sandbox.sandbox import available, shared_sandbox
from firsthand.scorers.code import LIMITS, parsed, reason
from firsthand.task import Task
from firsthand.trace import Score, Trace

_ARGUMENTS = "def f(*args, **named):\n    return [list(args), named]\n"


@needing(available)
async def assertion_holds(task: Task, trace: Trace) -> Score:
    """Score 1 if the predicted output, a literal, is the function's, or the function returns its output for the input."""
    return await _score(task, trace, published=False)


@needing(available)
async def cruxeval_assertion(task: Task, trace: Trace) -> Score:
    """`assertion_holds` as CRUXEval's code reads an answer: computed outputs and chains of `==` too (`cruxeval`)."""
    return await _score(task, trace, published=True)


async def _score(task: Task, trace: Trace, *, published: bool) -> Score:
    secret, text = task.secret, trace.answer or ""
    if secret.get("predict") not in ("input", "output"):
        raise DataError(f"task {task.id} predicts {secret.get('predict')!r}: input or output was expected")
    written = predicted(text, secret["predict"])
    if why := no_prediction(written, secret["predict"]) or ("" if published else unclear(text, secret["predict"])):
        return Score("assertion_holds", 0.0, {"predicted": written[:200], "reason": why})
    answer, tests = assertion_program(written, secret["predict"], secret["output"])
    outcome = await shared_sandbox().check(answer, tests, setup=secret["code"], names=("given",), limits=LIMITS)
    return Score("assertion_holds", float(outcome.ok), {"predicted": written[:200], **reason(outcome)})


def no_prediction(written: str, predict: str) -> str:
    """Why this is not one expression, or for an input calls no `f`; "" if it is one. CRUXEval's own code refuses both."""
    try:
        body = parsed(parsable(f"(\n{written}\n)")).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        body = []
    match body:
        case [ast.Expr(value=ast.Tuple(elts=[], lineno=1))]:  # the brackets are ours
            return "there is no prediction"
        case [ast.Expr()]:
            return "the prediction calls no f" if predict == "input" and "f(" not in written else ""
    return "the prediction is not one expression"


def unclear(text: str, predict: str) -> str:
    """Why an answer leaves open what it predicts, or computes the output that was to be predicted; or ""."""
    answers = {each.split("[/ANSWER]")[0].strip() for each in text.split("[ANSWER]")[1:]}
    if len(answers) > 1:
        return f"the answer has {len(answers)} different predictions in [ANSWER]"
    written = predicted(text, predict)
    if predict == "input":
        return ""
    said = (answers.pop() if answers else text.split("[/ANSWER]")[0]).strip().removeprefix("assert")
    try:
        (statement,) = parsed(parsable(f"(\n{said}\n)")).body
        value = parsed(parsable(f"(\n{written}\n)")).body[0]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "the answer is not one expression or assertion"
    if any(isinstance(each, ast.Compare) and len(each.ops) > 1 for each in [getattr(statement, "value", None)]):
        return "the answer compares more than two values"
    return "" if _is_literal(getattr(value, "value", None)) else "the predicted output is no literal"


def _is_literal(node: ast.AST | None) -> bool:
    """True if an expression is a value written out: nothing is computed, looked up or called but set() and float('inf')."""
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() | complex())):
            return True
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=ast.Constant(value=complex())):
            return _is_literal(left)
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return all(map(_is_literal, parts))
        case ast.Dict(keys=keys, values=values):
            return all(map(_is_literal, [*keys, *values]))
        case ast.Call(func=ast.Name(id="set" | "frozenset" | "float"), args=[] | [_] as parts, keywords=[]):
            return all(map(_is_literal, parts))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Call(func=ast.Name(id="float")) as inner):
            return _is_literal(inner)
    return False


def assertion_program(written: str, predict: str, output: str) -> tuple[str, str]:
    """Return the code that gives the predicted value, and the test of it."""
    given = f"def given():\n    return (\n{written}\n)\n"
    if predict == "output":
        return given, f"assert ({output}) == given()\n"
    return _ARGUMENTS + given, f"args, named = given()\nassert ({output}) == f(*args, **named)\n"


def predicted(text: str, what: str) -> str:
    """Return the expression in an answer such as `assert f(17) == 17`: the text after `==`, or the call before it."""
    text = text.split("[ANSWER]")[1] if "[ANSWER]" in text else text
    text = text.split("[/ANSWER]")[0]
    parts = text.split("==")
    if what == "output":
        return parts[1 if len(parts) > 1 else 0].strip()
    return parts[0].split("assert")[-1].strip()
