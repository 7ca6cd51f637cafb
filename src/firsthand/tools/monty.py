"""The fast path for pure functions: pydantic-monty, a Python interpreter in Rust without any access to the machine.

It starts a run in less than a millisecond, but it is not CPython: it lacks most modules and parts of the language. So it is
never the judge. Only a run that ends without any error counts; everything else is run again on CPython.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from typing import Any, NamedTuple

from firsthand.tools.bubblewrap import Run


class Attempt(NamedTuple):
    """What a run on Monty gave."""

    stdout: str
    wall_s: float


async def attempt(run: Run) -> Attempt | None:
    """What the code printed, or None if Monty is not installed, or met anything that CPython should decide."""
    pool = await asyncio.to_thread(_pool, os.getpid())
    return None if pool is None else await asyncio.to_thread(_attempt, pool, run)


def _attempt(pool: Any, run: Run) -> Attempt | None:
    from pydantic_monty import CollectStreams, MontyError

    if run.kind == "cell":  # only CPython writes a value as CPython does
        return None
    began = time.perf_counter()
    written = CollectStreams(max_bytes=run.limits.output_bytes)
    limits = {"max_feed_duration_secs": run.limits.wall_s, "max_memory": run.limits.memory_bytes}
    try:
        with pool.checkout(limits=limits, assert_message_annotations=False) as session:
            session.feed_run(run.code, print_callback=written)
    except (MontyError, TimeoutError, ValueError, TypeError):
        return None
    pieces = written.output
    if any(stream != "stdout" for stream, _ in pieces):
        return None
    return Attempt("".join(text for _, text in pieces), time.perf_counter() - began)


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
