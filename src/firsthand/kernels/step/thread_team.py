"""Lock-free barriers and work sharing for threads that run one compiled call together.

A phase is a number of items. Each thread takes the next item until none is left; the next phase begins when all items are
done. Threads wait for items, not for threads: one that starts late, or that the system has descheduled, finds its phases
done by the others and catches up.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from firsthand.kernels.jit import called

_intrinsic: Any = intrinsic
LINE = 8
"""int64 counters of a cache line; each counter has a line of its own."""
SPINS = 1000
"""Spins on a counter before the core is yielded."""
_LONG = ir.IntType(64)


def counters(phases: int) -> NDArray[np.int64]:
    """Zeroed counters for that many phases."""
    return np.zeros(phases * 2 * LINE, dtype=np.int64)


def together(threads: int, work: Callable[[], None]) -> None:
    """Run the same call in this thread and in others; returns when this thread's call ends, and all work with it.

    The other threads are not joined: a late one finds no item left and touches nothing.
    """
    for _ in range(threads - 1):
        _executor(threads - 1).submit(work)
    work()


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="firsthand-step")


def _pointer(builder: Any, context: Any, signature: Any, args: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


@_intrinsic
def fetch_add(typing: Any, array: Any, index: Any) -> Any:
    """Add 1 to a counter at once for all threads, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, context, signature, args), ir.Constant(_LONG, 1), "acq_rel")

    return types.int64(array, types.intp), generate


@_intrinsic
def look(typing: Any, array: Any, index: Any) -> Any:
    """A counter as the other threads left it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, context, signature, args), "acquire", 8)

    return types.int64(array, types.intp), generate


@_intrinsic
def offer_core(typing: Any) -> Any:
    """Yield the core (POSIX sched_yield)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = "sched_yield"
        declared = builder.module.globals.get(name)
        declared = declared or ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), name)
        builder.call(declared, [])
        return context.get_dummy_value()

    return types.void(), generate


@called
def take(team: Any, phase: int) -> Any:
    """The next item of a phase; too large a number if there is none left."""
    return fetch_add(team, phase * 2 * LINE)


@called
def done(team: Any, phase: int) -> None:
    """Mark an item as done."""
    fetch_add(team, phase * 2 * LINE + LINE)


@called
def wait(team: Any, phase: int, items: int) -> None:
    """Return when all items of a phase are done."""
    spins = 0
    while look(team, phase * 2 * LINE + LINE) < items:
        spins += 1
        if spins > SPINS:
            offer_core()
