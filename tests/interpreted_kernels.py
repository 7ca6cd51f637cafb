"""Runs kernels without compiling them: Python executes their bodies, and `interpreted_ir` the LLVM code of the intrinsics.

It shows every line of a kernel to a test, also those for processors that are not there, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import CellType, CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core.extending import _Intrinsic

from firsthand.kernels.vectors import FLOATS, LANES_TYPE
from interpreted_ir import Machine, Pointer, Translation

PLAIN = {
    types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int64: ir.IntType(64),
    types.int32: ir.IntType(32), types.int16: ir.IntType(16), types.int8: ir.IntType(8), types.uint8: ir.IntType(8),
    types.boolean: ir.IntType(1), LANES_TYPE: FLOATS,
}  # fmt: skip


class Interpreter:
    """Kernels as plain functions, and what their instructions did."""

    def __init__(self, **replaced: Any):
        self.machine = Machine()
        self.replaced = replaced
        """Names in kernels, and the values that stand for them."""
        self._made: dict[int, Any] = {}

    def __call__(self, kernel: Any) -> Callable[..., Any]:
        """The kernel's body, which calls the bodies of what it calls."""
        run = self._function(getattr(kernel, "py_func", kernel))

        def quiet(*args: Any, **kwargs: Any) -> Any:
            with np.errstate(all="ignore"):
                return run(*args, **kwargs)

        return quiet

    def _function(self, body: Any) -> Any:
        if id(body) not in self._made:
            space: dict[str, Any] = dict(body.__globals__)
            cells = tuple(CellType(None) for _ in body.__closure__ or ())
            made = FunctionType(body.__code__, space, body.__name__, body.__defaults__, cells)
            made.__kwdefaults__ = body.__kwdefaults__
            self._made[id(body)] = made
            for name in names_of(body.__code__):
                if name in space:
                    space[name] = self._stand_in(name, space[name])
            for name, cell, own in zip(body.__code__.co_freevars, cells, body.__closure__ or (), strict=True):
                cell.cell_contents = self._stand_in(name, own.cell_contents)
        return self._made[id(body)]

    def _stand_in(self, name: str, value: Any) -> Any:
        if name in self.replaced:
            return self.replaced[name]
        if isinstance(value, _Intrinsic):
            return lambda *args: self.intrinsic(value, *args)
        if hasattr(value, "py_func"):
            return self._function(value.py_func)
        if value is np:
            return NUMPY
        if isinstance(value, ModuleType) and value.__name__.startswith("firsthand"):
            return SimpleNamespace(
                **{
                    each: part if isinstance(part, ModuleType) else self._stand_in(each, part)
                    for each, part in vars(value).items()
                }
            )
        return value

    def intrinsic(self, value: Any, *args: Any) -> Any:
        """Call one intrinsic."""
        key = (value, *[arg.dtype if type(arg) is np.ndarray else type(arg) for arg in args])
        if key not in BUILT:
            BUILT[key] = built(value, tuple(map(kind_of, args)))
        run, takes, gives = BUILT[key]
        found = run(self.machine, *[take(arg) for take, arg in zip(takes, args, strict=True)])
        if gives is LANES_TYPE:
            return found[0].view(Vector)
        return found if isinstance(gives, types.UniTuple) else found[0] if found else None


class Numpy:
    """numpy, with numba's int32, which wraps around."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def int32(self, value: Any) -> Any:
        return np.array(value).astype(np.int32)[()]


NUMPY = Numpy()


def names_of(code: CodeType) -> set[str]:
    """The names that a function and those inside it look up."""
    return set(code.co_names).union(*(names_of(each) for each in code.co_consts if isinstance(each, CodeType)))


BUILT: dict[Any, Any] = {}
"""The translation of each intrinsic for the types of its arguments, what each becomes, and the type of its result."""


def built(value: Any, given: tuple[Any, ...]) -> Any:
    signature, generate = value._defn(None, *given)
    shapes = [
        PLAIN[kind.dtype].as_pointer() if isinstance(kind, types.Array) else PLAIN[kind] for kind in signature.args
    ]
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), shapes), "interpreted")
    builder = ir.IRBuilder(function.append_basic_block())
    context = SimpleNamespace(
        make_array=lambda kind: lambda context, builder, array: SimpleNamespace(data=array),
        get_dummy_value=lambda: None,
        make_tuple=lambda builder, kind, values: tuple(values),
    )
    result = generate(context, builder, signature, list(function.args))
    builder.ret_void()
    results = () if result is None else result if isinstance(result, tuple) else (result,)
    return Translation(function, results).run, list(map(converter, signature.args)), signature.return_type


@cache
def array_of(dtype: Any) -> Any:
    return types.Array(from_dtype(dtype), 1, "C")


def kind_of(value: Any) -> Any:
    """numba's type of a value; 16 floats are a vector's only where no array is expected, which is for the caller to know."""
    if isinstance(value, Vector):
        return LANES_TYPE
    if isinstance(value, np.ndarray):
        return array_of(value.dtype)
    if isinstance(value, (bool, np.bool_)):
        return types.boolean
    if isinstance(value, np.float32):
        return types.float32
    if isinstance(value, np.int32):
        return types.int32
    return types.float64 if isinstance(value, (float, np.float64)) else types.int64


class Vector(np.ndarray):
    """The 16 floats of a register."""


def converter(kind: Any) -> Callable[[Any], Any]:
    """Makes an argument of Python the value that LLVM's code takes."""
    if isinstance(kind, types.Array):
        return lambda value: Pointer(value.view(np.uint8), 0)
    if kind is LANES_TYPE:
        return lambda value: value.view(np.ndarray)
    return np.float32 if kind is types.float32 else int
