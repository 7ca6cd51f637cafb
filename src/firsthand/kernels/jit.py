"""Compiles kernels with numba, once per machine and user: see `code_cache`.

Functions that a factory makes need names of their own (`named`). numba's symbols are a function's qualified name, its
types and a number that counts up in each process; siblings of one name thus swap numbers between processes, and code from
the cache of one process would call its neighbour's sibling in another: floats read as halves, with numbers that are none.
Importing this file imports numba.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import logging
from typing import Any

from numba import njit, types

from firsthand.kernels.code_cache import keep_code, tell_of_no_cache
from firsthand.kernels.linked_code import KernelCompiler, LinkedCompiler, fits

logger = logging.getLogger("firsthand")
_njit: Any = njit  # numba's annotations do not know all of its options


def kernel(function: Any) -> Any:
    """Compiles a function; it runs without the GIL, and integer division by zero does not raise.

    Other kernels may call it too: they link its code in, which does not compile it for Python.
    """
    _check_name(function)
    compiled = _compiled(function, cache=True)
    keep_code(compiled, function)
    linked = _called(function, makes_arrays=True)
    compiled.get_call_template, compiled.get_overload = linked.get_call_template, linked.get_overload
    return compiled


def _compiled(function: Any, cache: bool) -> Any:
    """numba's dispatcher; without a disk cache if no folder for one can be written, as for a user without a home."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": True}
    if fits():
        options["pipeline_class"] = KernelCompiler
    try:
        return _njit(cache=cache, **options)(function)
    except RuntimeError as error:
        if not cache or "no locator available" not in str(error):
            raise
    tell_of_no_cache()
    return _compiled(function, cache=False)


def named(name: str) -> Any:
    """A decorator that gives a function made by a factory a unique name."""

    def rename(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


def _check_name(function: Any) -> None:
    assert "<locals>" not in function.__qualname__, f"{function.__qualname__} needs a name of its own: see `named`"


def inlined(function: Any) -> Any:
    """A function that is inlined into the kernels that call it."""
    return _njit(inline="always", error_model="numpy")(function)


def called(function: Any) -> Any:
    """A function that kernels call, compiled once for all of them in a process. Python cannot call it.

    It cannot create arrays, so it does no reference counting: the counter of an array that all threads use would bounce
    between their cores.
    """
    return _called(function, makes_arrays=False)


def allocating(function: Any) -> Any:
    """As `called`, for a function that creates arrays."""
    return _called(function, makes_arrays=True)


def _called(function: Any, *, makes_arrays: bool) -> Any:
    _check_name(function)
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": makes_arrays}
    if fits():
        options["pipeline_class"] = LinkedCompiler
    return _for_any_number(_njit(nogil=True, error_model="numpy", **options)(function))


def _for_any_number(compiled: Any) -> Any:
    """Compiles the function once per type; numba would compile it again for each constant argument."""
    template = compiled.get_call_template

    def without_literals(args: Any, kwargs: Any) -> Any:
        return template(
            [types.unliteral(kind) for kind in args], {k: types.unliteral(kind) for k, kind in kwargs.items()}
        )

    compiled.get_call_template = without_literals
    return compiled
