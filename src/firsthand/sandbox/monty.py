"""The fast path for pure functions: pydantic-monty, a Python interpreter in Rust without any access to the machine.

It starts a run in less than a millisecond, but it is not CPython: it lacks most modules and parts of the language. So it is
never the judge. Only a run that ends without any error counts; everything else is run again on CPython. Where tests decide,
the answer and they are two sessions with only plain values between them, as they are two processes on CPython, and an answer
that could change what a call of its functions means (classes, shadowed builtins, reflection) is not tried here at all.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import functools
import os
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.sandbox.sandbox_limits import RunLimits

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
_PLAIN = """
def {word}_plain(value):
    kind = type(value)
    if kind is dict:
        return all({word}_plain(key) and {word}_plain(each) for key, each in value.items())
    if kind in (list, tuple, set, frozenset):
        return all({word}_plain(each) for each in value)
    return value is None or kind in (bool, int, float, str, bytes)
"""
"""Monty hands out a range as a text and a generator as a list, so whether a value is plain is asked before it leaves."""
_ASK = """
def {name}(*args, **kwargs):
    return {word}_call({word}_plain([args, kwargs]), "{name}", args, kwargs)
"""
_CALL = """
{word}_before = repr({word}_given)
{word}_value = {name}(*{word}_given[0], **{word}_given[1])
({word}_plain({word}_value) and repr({word}_given) == {word}_before, {word}_value)
"""


class MontyRun(NamedTuple):
    """The outcome of a run on Monty."""

    stdout: str
    wall_s: float


class _Pool(NamedTuple):
    """Interpreters in processes of their own, twice as many as `turns` lets in: an attempt holds two and waits for none."""

    processes: Any
    turns: threading.Semaphore


async def attempt(run: SandboxRun) -> MontyRun | None:
    """The output of the code, or None if Monty is not installed, or met anything that CPython should decide."""
    pool = await asyncio.to_thread(_pool, os.getpid())
    if pool is None or _parsed(run.code) is None:
        return None
    return await asyncio.to_thread(_attempt, pool, run)


async def attempt_check(
    answer: str, setup: str, tests: str, names: Sequence[str], limits: RunLimits
) -> MontyRun | None:
    """Return the output of the tests if all pass with an answer that cannot reach them; otherwise None."""
    from firsthand.sandbox.programs.checker import free_names

    if not cannot_bend_tests(answer) or _parsed(f"{setup}\n{tests}") is None or _parsed(tests) is None:
        return None
    asked = sorted(free_names(tests, {}) & free_names(f"{setup}\n{tests}", {}) | set(names))
    if not all(name.isidentifier() and not hasattr(builtins, name) for name in asked):
        return None
    pool = await asyncio.to_thread(_pool, os.getpid())
    return None if pool is None else await asyncio.to_thread(_attempt_check, pool, answer, setup, tests, asked, limits)


def cannot_bend_tests(answer: str) -> bool:
    """True if an answer only defines plain functions and values, so that a call of one means what it says."""
    tree = _parsed(answer)
    return tree is not None and not any(_could_bend(node) for node in ast.walk(tree))


def _parsed(code: str) -> ast.Module | None:
    """The syntax tree; None if there is none, or `return` stands outside of functions, where Monty ends without an error."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Return):
            return None
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            left.extend(ast.iter_child_nodes(node))
    return tree


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


def _attempt(pool: _Pool, run: SandboxRun) -> MontyRun | None:
    from pydantic_monty import CollectStreams, MontyError

    if run.kind == "cell":  # only CPython writes a value as CPython does
        return None
    written = CollectStreams(max_bytes=run.limits.output_bytes)
    limits = {"max_feed_duration_secs": min(FAST_S, run.limits.wall_s), "max_memory": run.limits.memory_bytes}
    try:
        with pool.turns, pool.processes.checkout(limits=limits, assert_message_annotations=False) as session:
            began = time.perf_counter()
            session.feed_run(run.code, print_callback=written)
    except (MontyError, TimeoutError, ValueError, TypeError):
        return None
    pieces = written.output
    if any(stream != "stdout" for stream, _ in pieces):
        return None
    return MontyRun("".join(text for _, text in pieces), time.perf_counter() - began)


def _attempt_check(
    pool: _Pool, answer: str, setup: str, tests: str, asked: Sequence[str], limits: RunLimits
) -> MontyRun | None:
    """The tests in one session; each call of a name that they ask for is carried out in another, which holds the answer."""
    from pydantic_monty import CollectStreams, MontyError

    within = min(FAST_S, limits.wall_s)
    bounds = {"max_feed_duration_secs": within, "max_memory": limits.memory_bytes}
    word, proof = (
        f"_{secrets.token_hex(16)}",
        secrets.token_hex(32),
    )  # an answer must not name what is ours in its session
    unheard, written = (CollectStreams(max_bytes=limits.output_bytes) for _ in range(2))
    every_call_ended_well = True

    def call(plain: bool, name: str, args: Any, kwargs: Any) -> Any:
        nonlocal every_call_ended_well
        ended_well, every_call_ended_well = every_call_ended_well, False  # the tests may catch what is raised here
        if not (plain and ended_well and time.perf_counter() - began < within):
            raise TimeoutError("left to CPython")
        code = _CALL.format(word=word, name=name)
        sound, value = theirs.feed_run(code, inputs={f"{word}_given": [args, kwargs]}, print_callback=unheard)
        every_call_ended_well = sound
        return value

    try:
        with (
            pool.turns,
            pool.processes.checkout(limits=bounds, assert_message_annotations=False) as theirs,
            pool.processes.checkout(limits=bounds, assert_message_annotations=False) as ours,
        ):
            began = time.perf_counter()
            ours.feed_run(setup, print_callback=written)
            theirs.feed_run(answer, print_callback=unheard)
            theirs.feed_run(_PLAIN.format(word=word), print_callback=unheard)
            asks = "".join(_ASK.format(word=word, name=name) for name in asked)
            lookup = {f"{word}_call": call}
            ours.feed_run(_PLAIN.format(word=word) + asks, external_lookup=lookup, print_callback=written)
            last = ours.feed_run(f"{tests}\n\n{proof!r}", external_lookup=lookup, print_callback=written)
    except (MontyError, TimeoutError, ValueError, TypeError):
        return None
    pieces = written.output
    if last != proof or not every_call_ended_well or any(stream != "stdout" for stream, _ in pieces):
        return None
    return MontyRun("".join(text for _, text in pieces), time.perf_counter() - began)


@functools.cache
def _pool(pid: int) -> _Pool | None:
    """The interpreter's worker processes, started once; None where the package is missing or cannot start."""
    try:
        from pydantic_monty import Monty
    except ImportError:
        return None
    at_once = os.cpu_count() or 1
    try:
        processes = Monty(max_processes=2 * at_once, checkout_timeout=10.0, request_timeout=60.0).__enter__()
    except Exception:
        return None
    return _Pool(processes, threading.Semaphore(at_once))
