"""The fast path for pure functions: pydantic-monty, a Python interpreter in Rust without any access to the machine.

It starts a run in less than a millisecond, but it is not CPython: it lacks most modules and parts of the language, and some
code means another thing (an iterator can be read twice). So it is never the judge of an answer against tests, and of other
code only a run that ends without any error counts; everything else is run again on CPython.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from typing import Any, NamedTuple

from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.system.normalised_text import has_long_marks

FAST_S = 0.05
"""Code that takes longer is left to CPython, which computes several times faster."""


class MontyRun(NamedTuple):
    """The outcome of a run on Monty."""

    stdout: str
    wall_s: float


async def attempt(run: SandboxRun) -> MontyRun | None:
    """The output of the code, or None if Monty is not installed, or met anything that CPython should decide."""
    pool = await asyncio.to_thread(_pool, os.getpid())
    if pool is None or not _is_python(run.code):
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
