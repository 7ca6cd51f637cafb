"""The fast path for pure functions: pydantic-monty, a Python interpreter in Rust without any access to the machine.

It starts a run in less than a millisecond, but it is not CPython: it lacks most modules and parts of the language, and some
code means another thing (an iterator can be read twice, floats are rounded otherwise, keys of a dict stay 1 and True). So
only code of whole numbers, texts and lists is tried here, it is never the judge of an answer against tests, and of other
code only a run that ends without any error counts; everything else is run again on CPython.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import functools
import os
import time
from typing import Any, NamedTuple

from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.system.normalised_text import has_long_marks

FAST_S = 0.05
"""Code that takes longer is left to CPython, which computes several times faster."""

_ALIKE = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Pass,
    ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assert, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare,
    ast.IfExp, ast.Call, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Subscript, ast.Slice, ast.ListComp,
    ast.comprehension, ast.expr_context, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.operator, ast.unaryop,
    ast.boolop, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip
"""Parts of the language that mean the same on both, over whole numbers, texts and lists."""
_OTHERWISE = (ast.Div, ast.Pow, ast.MatMult)
"""Operators that make floats, or that only libraries have."""
_BUILTINS = {"print", "len", "range", "sum", "min", "max", "abs", "sorted", "str", "int", "list", "tuple", "bool"}


class MontyRun(NamedTuple):
    """The outcome of a run on Monty."""

    stdout: str
    wall_s: float


async def attempt(run: SandboxRun) -> MontyRun | None:
    """The output of the code, or None if Monty is not installed, or met anything that CPython should decide."""
    pool = await asyncio.to_thread(_pool, os.getpid())
    if pool is None or not _is_python(run.code) or not _is_alike(run.code):
        return None
    return await asyncio.to_thread(_attempt, pool, run)


def _is_python(code: str) -> bool:
    """True if CPython compiles it; Monty runs some code that CPython refuses, such as `return` outside of functions."""
    if has_long_marks(code):
        return False
    try:
        compile(code, "<run>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_alike(code: str) -> bool:
    """True for whole numbers, texts, lists and the program's own functions alone, which Monty computes as CPython does."""
    nodes = list(ast.walk(ast.parse(code)))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    called = {node.func for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if not isinstance(node, _ALIKE) or isinstance(node, _OTHERWISE):
            return False
        if isinstance(node, ast.Constant) and not _is_plain(node.value):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in own | _BUILTINS):
            return False
        if (
            isinstance(node, ast.Name)
            and (node.id.startswith("__") or hasattr(builtins, node.id))
            and (node not in called or node.id not in _BUILTINS)
        ):
            return False
        if isinstance(node, ast.FunctionDef) and (node.decorator_list or hasattr(builtins, node.name)):
            return False
    return True


def _is_plain(value: object) -> bool:
    """True for a constant that is no float, and no text by which one may be written."""
    return (value.isascii() and "%" not in value) if isinstance(value, str) else isinstance(value, int | None)


def _attempt(pool: Any, run: SandboxRun) -> MontyRun | None:
    from pydantic_monty import CollectStreams, MontyError

    if run.kind == "cell":  # only CPython writes a value as CPython does
        return None
    written = CollectStreams(max_bytes=run.limits.output_bytes)
    limits = {"max_feed_duration_secs": min(FAST_S, run.limits.wall_s), "max_memory": run.limits.memory_bytes}
    try:
        with pool.checkout(limits=limits, assert_message_annotations=False) as session:
            began = time.perf_counter()
            session.feed_run(run.code, print_callback=written)
    except (MontyError, TimeoutError, ValueError, TypeError):
        return None
    pieces = written.output
    if any(stream != "stdout" for stream, _ in pieces):
        return None
    return MontyRun("".join(text for _, text in pieces), time.perf_counter() - began)


@functools.cache
def _pool(pid: int) -> Any:
    """The interpreter's worker processes, started once; None where the package is missing or cannot start."""
    try:
        from pydantic_monty import Monty
    except ImportError:
        return None
    try:
        return Monty(request_timeout=60.0).__enter__()
    except Exception:
        return None
