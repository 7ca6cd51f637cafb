"""Vectors of 16 floats for kernels, with a fixed order of every sum.

A plain numba loop over floats either keeps its order and is slow, or may be reordered (`fastmath`), and then its result
depends on how it was compiled. Here `fma` rounds once, each lane does what the code says, and LLVM maps a vector to
whatever registers the machine has (one of AVX-512, two of AVX2, four of NEON). Numbers lie in memory as float32, as float16
(arrays of int16 that hold the halves' bits) or as int8, and are float32 once loaded. Importing this file imports numba.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

from firsthand.kernels.jit import inlined

_intrinsic: Any = intrinsic
LANES = 16
"""Floats of a vector."""
FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
HALVES, SHORTS, BYTES = (ir.VectorType(kind, LANES) for kind in (ir.HalfType(), ir.IntType(16), ir.IntType(8)))


class Float16Lanes(types.Type):
    """The numba type of 16 floats of 32 bits."""

    def __init__(self) -> None:
        super().__init__(name="Float16Lanes")


LANES_TYPE = Float16Lanes()


@register_model(Float16Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


def pointer_to(builder: Any, context: Any, signature: Any, args: Any, position: int) -> Any:
    """A pointer to the element of a flat contiguous array at the index that follows it among the arguments."""
    array = context.make_array(signature.args[position])(context, builder, args[position])
    return builder.gep(array.data, [args[position + 1]])


def read_floats(builder: Any, stored: Any, pointer: Any) -> Any:
    """Emit the load of 16 numbers of a numba element type, as float32; nothing is rounded."""
    if stored == types.float32:
        return builder.load(builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
    if stored == types.int16:
        return builder.fpext(builder.load(builder.bitcast(pointer, HALVES.as_pointer()), align=2), FLOATS)
    assert stored == types.int8, f"no vectors of {stored}"
    whole = builder.sext(builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1), INTS)
    return builder.sitofp(whole, FLOATS)


@_intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The 16 numbers of a flat array that start at an index, as float32. There is no bounds check."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return read_floats(builder, array.dtype, pointer_to(builder, context, signature, args, 0))

    return LANES_TYPE(array, types.intp), generate


@_intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 floats to a flat array from an index on, rounded to the nearest that it can hold. There is no bounds check.

    An int8 array takes whole numbers from -128 to 127, rounded half to even; NaN becomes 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, value = pointer_to(builder, context, signature, args, 0), args[2]
        if array.dtype == types.int16:
            value = builder.bitcast(builder.fptrunc(value, HALVES), SHORTS)
        elif array.dtype == types.int8:
            value = builder.call(llvm_function(builder, "llvm.rint.v16f32", FLOATS, [FLOATS]), [value])
            value = builder.call(llvm_function(builder, "llvm.fptosi.sat.v16i8.v16f32", BYTES, [FLOATS]), [value])
        builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), generate


def llvm_function(builder: Any, name: str, returns: Any, takes: list[Any]) -> Any:
    """The LLVM intrinsic of that name, declared once per module."""
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(returns, takes), name)


def own_function(module: Any, name: str, takes: list[Any], emit: Callable[[Any, Any], None]) -> Any:
    """A function of a module's own, which `emit(builder, args)` fills once: LLVM would else compile a copy at every call."""
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), takes), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(builder, function.args)
    builder.ret_void()
    return function


def emit_prefetch(builder: Any, pointer: Any, locality: int) -> None:
    """Emit a prefetch of an address's cache line into the first-level cache (locality 3) or the second (2)."""
    place = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    declared = llvm_function(builder, "llvm.prefetch.p0", ir.VoidType(), [place.type, INT, INT, INT])
    builder.call(declared, [place, *(ir.Constant(INT, flag) for flag in (0, locality, 1))])  # to read, data


@_intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of an element; changes no value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_prefetch(builder, pointer_to(builder, context, signature, args, 0), 3)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def emit_loop(builder: Any, count: Any, sums: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit `for k in range(count): sums = step(k, sums)` for a count of 1 or more, with the sums in registers."""
    before, inside, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(inside)
    builder.position_at_end(inside)
    k = builder.phi(LONG)
    held = [builder.phi(each.type) for each in sums]
    results = step(k, held)
    following = builder.add(k, ir.Constant(LONG, 1))
    for phi, start, end in zip([k, *held], [ir.Constant(LONG, 0), *sums], [following, *results], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(end, builder.block)  # a loop inside may have ended in another block than it began
    builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
    builder.position_at_end(after)
    return results


def splat_in(builder: Any, value: Any, kind: Any) -> Any:
    """Emit a vector of a type with one value in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT, 0))
    zeros = ir.Constant(INTS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def constant(kind: Any, value: float) -> Any:
    """A vector of a type with one constant in all lanes."""
    return ir.Constant(kind, [value] * kind.count)


@_intrinsic
def splat(typing: Any, value: Any) -> Any:
    """One float in all 16 lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat_in(builder, args[0], FLOATS)

    return LANES_TYPE(types.float32), generate


@_intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in each lane, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3), args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), generate


def _binary(operation: str, doc: str) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, operation)(*args)

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate

    typed.__doc__ = doc
    return _intrinsic(typed)


add = _binary("fadd", "a + b in each lane.")
divide = _binary("fdiv", "a / b in each lane.")
sub = _binary("fsub", "a - b in each lane.")
mul = _binary("fmul", "a * b in each lane.")


@_intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of a and b in each lane; a where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_unordered(">", *args), *args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate


@_intrinsic
def where_less(typing: Any, a: Any, b: Any, less: Any, otherwise: Any) -> Any:
    """`less` in the lanes where a < b, `otherwise` in the others and where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE, LANES_TYPE), generate


@_intrinsic
def absolute(typing: Any, a: Any) -> Any:
    """|a| in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, "llvm.fabs.v16f32", FLOATS, [FLOATS]), args)

    return LANES_TYPE(LANES_TYPE), generate


@_intrinsic
def where_between(typing: Any, low: Any, high: Any, inside: Any, outside: Any) -> Any:
    """`inside` in the lanes from `low` up to but not including `high`, `outside` in the others."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.Constant(INTS, list(range(LANES)))
        low, high = (splat_in(builder, builder.trunc(bound, INT), INTS) for bound in args[:2])
        mask = builder.and_(builder.icmp_signed(">=", number, low), builder.icmp_signed("<", number, high))
        return builder.select(mask, args[2], args[3])

    return LANES_TYPE(types.intp, types.intp, LANES_TYPE, LANES_TYPE), generate


def _fold(operation: str) -> Any:
    """Combine lanes by halves: 8 with 8, 4 with 4, 2 with 2, 1 with 1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, count = args[0], LANES
        while count > 1:
            count //= 2
            kind = ir.VectorType(INT, count)
            left, right = (
                builder.shuffle_vector(lanes, lanes, ir.Constant(kind, list(range(first, first + count))))
                for first in (0, count)
            )
            if operation == "add":
                lanes = builder.fadd(left, right)
            else:
                lanes = builder.select(builder.fcmp_ordered(">", left, right), left, right)
        return builder.extract_element(lanes, ir.Constant(INT, 0))

    return generate


@_intrinsic
def total(typing: Any, lanes: Any) -> Any:
    """The sum of the 16 lanes, by halves."""
    return types.float32(LANES_TYPE), _fold("add")


@_intrinsic
def largest(typing: Any, lanes: Any) -> Any:
    """The largest of the 16 lanes."""
    return types.float32(LANES_TYPE), _fold("max")


@_intrinsic
def times_power_of_two(typing: Any, value: Any, biased: Any) -> Any:
    """value * 2 ** n in each lane, where `biased` is n + ROUND; the product must be a normal number. NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, whole = (builder.bitcast(arg, INTS) for arg in args)  # the last bits of `biased` are those of n
        return builder.bitcast(builder.add(bits, builder.shl(whole, ir.Constant(INTS, [23] * LANES))), FLOATS)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate


_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(-0.693359375), np.float32(2.12194440e-4)
ROUND = np.float32(12582912.0)
"""A float so large that adding it rounds to whole numbers."""
_C2, _C3, _C4 = np.float32(0.49999994), np.float32(0.16666667), np.float32(0.041666519)
_C5, _C6 = np.float32(0.0083369050), np.float32(0.0013908699)
_FLOOR = np.float32(-87.0)


@inlined
def exp(x: Any) -> Any:
    """e ** x for lanes of 0 and below, to 3 units in the last place; below -87 it is e ** -87, about 1.6e-38."""
    x = larger(x, splat(_FLOOR))
    biased = fma(x, splat(_LOG2_E), splat(ROUND))
    whole = sub(biased, splat(ROUND))
    rest = fma(whole, splat(_LN2_LOW), fma(whole, splat(_LN2_HIGH), x))
    series = fma(splat(_C6), rest, splat(_C5))
    series = fma(series, rest, splat(_C4))
    series = fma(series, rest, splat(_C3))
    series = fma(series, rest, splat(_C2))
    series = fma(series, mul(rest, rest), add(rest, splat(_ONE)))
    return times_power_of_two(series, biased)
