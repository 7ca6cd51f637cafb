"""The fast path for pure functions: pydantic-monty, a Python interpreter in Rust without any access to the machine.

It starts a run in less than a millisecond, but it is not CPython: it lacks most modules and parts of the language. So it is
never the judge. Only a run that ends without any error counts; everything else is run again on CPython. Where tests decide,
an answer that could bend them (classes, shadowed builtins, reflection) is not tried here at all: there it shares a namespace
with them.
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

FAST_S = 0.05
"""Code that takes longer is left to CPython, which computes several times faster."""
_MODULES = {"typing", "math", "re", "collections", "itertools", "functools", "json", "datetime", "dataclasses"}
_REFLECTION = {
    "exec",
    "eval",
    "compile",
    "globals",
    "locals",
    "vars",
    "setattr",
    "delattr",
    "getattr",
    "open",
    "input",
    "type",
}


class MontyRun(NamedTuple):
    """The outcome of a run on Monty."""

    stdout: str
    wall_s: float


async def attempt(run: SandboxRun) -> MontyRun | None:
    """The output of the code, or None if Monty is not installed, or met anything that CPython should decide."""
    pool = await asyncio.to_thread(_pool, os.getpid())
    return None if pool is None else await asyncio.to_thread(_attempt, pool, run)


def cannot_bend_tests(answer: str) -> bool:
    """True if an answer only defines plain functions and values, so that tests in its namespace are sound."""
    try:
        nodes = list(ast.walk(ast.parse(answer)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return not any(_could_bend(node) for node in nodes)


def _could_bend(node: ast.AST) -> bool:
    match node:
        case ast.ClassDef() | ast.AsyncFunctionDef() | ast.Global() | ast.ExceptHandler(name=str()):
            return True
        case ast.Attribute(attr=name, ctx=context):
            return name.startswith("__") or not isinstance(context, ast.Load)
        case ast.Name(id=name, ctx=context):
            known = name.startswith("__") or name in _REFLECTION
            return known or (not isinstance(context, ast.Load) and hasattr(builtins, name))
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return hasattr(builtins, name) or name.startswith("__")
        case ast.FunctionDef(name=name):
            return hasattr(builtins, name) or name.startswith("__")
        case ast.Import(names=names):
            return any(each.name not in _MODULES or hasattr(builtins, each.asname or each.name) for each in names)
        case ast.ImportFrom(module=module, names=names):
            return module not in _MODULES or any(
                each.name == "*" or hasattr(builtins, each.asname or each.name) for each in names
            )
    return False


def _attempt(pool: Any, run: SandboxRun) -> MontyRun | None:
    from pydantic_monty import CollectStreams, MontyError

    if run.kind == "cell":  # only CPython writes a value as CPython does
        return None
    began = time.perf_counter()
    written = CollectStreams(max_bytes=run.limits.output_bytes)
    limits = {"max_feed_duration_secs": min(FAST_S, run.limits.wall_s), "max_memory": run.limits.memory_bytes}
    try:
        with pool.checkout(limits=limits, assert_message_annotations=False) as session:
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
